"""The configuration: layers, overrides, and errors that hold the path of the wrong key."""

from pathlib import Path

import pytest

from core.config import PROFILES, REGULAR_FEES, Config, hash_config, load
from core.errors import ConfigError


def test_defaults_are_those_of_the_tree(tmp_path: Path) -> None:
    assert load(root=tmp_path) == Config()


def test_later_layers_win(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text("seed = 1\n[sim]\nhours = 2\nedge = 3\n")
    config = load(pairs=["sim.edge=4"], options={"seed": 9, "source": None}, root=tmp_path)
    assert (config.seed, config.sim.hours, config.sim.edge, config.source) == (9, 2.0, 4.0, "sim")


def test_a_profile_lies_under_the_file(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text('profile = "smoke"\n[sim]\nhours = 2\n')
    config = load(root=tmp_path)
    assert config.sim.hours == 2
    assert config.train.max_rows == PROFILES["smoke"]["train"]["max_rows"]


def test_one_fee_can_be_set_and_the_others_stay(tmp_path: Path) -> None:
    config = load(pairs=["fees.binance_um.maker_bps=-0.5"], root=tmp_path)
    assert config.fees["binance_um"].maker_bps == -0.5
    assert config.fees["binance_um"].taker_bps == REGULAR_FEES["binance_um"].taker_bps
    assert config.fees["bybit"] == REGULAR_FEES["bybit"]


@pytest.mark.parametrize(
    ("pair", "path"),
    [
        ("sim.hour=2", "$.sim"),
        ("sim.hours=-1", "$.sim.hours"),
        ("fees.binance_um.taker=1", "$.fees"),
        ("train.thresholds=[0.3]", "$.train.thresholds"),
        ("seed=x", "$.seed"),
        ("sim=3", "$.sim"),
        ("symbols=BTCUSDT", "$.symbols"),
        ("symbols=kraken:BTCUSDT", "$.symbols"),
        ("novel=1", "novel"),
        ("bars=time_0s", "$.bars"),
        ("decision=soon", "$.decision"),
        ("decision=99999999999d", "$.decision"),
        ("bars=time_48h", "$.bars"),
        ("sim.edge=nan", "$.sim.edge"),
        ("sim.hours=inf", "$.sim.hours"),
        ("sim.hours=9000", "$.sim.hours"),
        ("replay.speed=nan", "$.replay.speed"),
        ("backtest.order_usd=inf", "$.backtest.order_usd"),
        ("train.thresholds=[nan]", "$.train.thresholds[0]"),
        ("train.thresholds=[]", "$.train.thresholds"),
        ("train.families=[]", "$.train.families"),
        ("train.edges_bps=[]", "$.train.edges_bps"),
        ("train.horizons_s=[]", "$.train.horizons_s"),
        ("labels.horizons_s=[]", "$.labels.horizons_s"),
        ("labels.horizons_s=[1e12]", "$.labels.horizons_s[0]"),
        ("labels.deltas_bps=[]", "$.labels.deltas_bps"),
        ("labels.gates_usd=[]", "$.labels.gates_usd"),
        ("labels.entry_latency_ms=60001", "$.labels.entry_latency_ms"),
        ('train.families=["hgb", "hgb"]', "$.train.families"),
        ("symbols=bybit:BTCUSDT,bybit:BTCUSDT", "$.symbols"),
        ("symbols=", "$.symbols"),
        ("symbols=bybit:btcusdt", "$.symbols"),
        ("symbols=bybit:BTC.USDT", "$.symbols"),
        ("symbols=bybit:../X", "$.symbols"),
        ("symbols=bybit:BTC?X=1", "$.symbols"),
        ("sim.start=2026-02-30T00:00:00Z", "$.sim.start"),
        ("sim.start=0001-01-01T00:00:00Z", "$.sim.start"),
        ("fees.binance_um.taker_bps=nan", "$.fees.binance_um.taker_bps"),
        ("fees.bybit.taker_bps=much", "$.fees.bybit.taker_bps"),
        ("fees.bybit.taker=1", "did you mean `taker_bps`?"),
        ("sim.hour=2", "did you mean `hours`?"),
        ("trian.rounds=2", "did you mean `train`?"),
        ("capture.hosts.novel=x", "known are binance_um_ws"),
    ],
)
def test_a_wrong_key_or_value_is_an_error_with_its_path(pair: str, path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(pairs=[pair], root=tmp_path)
    assert path in str(caught.value)


@pytest.mark.parametrize("pair", ["sim.hours", "=2", "sim..hours=2", ""])
def test_a_pair_must_read_key_equals_value(pair: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--set takes key=value"):
        load(pairs=[pair], root=tmp_path)


def test_a_missing_or_broken_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(file="absent.toml", root=tmp_path)
    (tmp_path / "broken.toml").write_text("seed = = 1")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load(file="broken.toml", root=tmp_path)


def test_symbols_can_be_given_as_a_list_or_with_commas(tmp_path: Path) -> None:
    listed = load(pairs=['symbols=["bybit:BTCUSDT", "binance:ETHUSDT"]'], root=tmp_path)
    assert listed == load(pairs=["symbols=bybit:BTCUSDT,binance:ETHUSDT"], root=tmp_path)


def test_symbols_may_have_the_names_that_venues_give(tmp_path: Path) -> None:
    names = "bybit:BTC-27MAR26", "binance_um:BTCUSDT_260327", "binance_um:币安人生USDT", "bybit:1000PEPEUSDT"
    assert load(options={"symbols": names}, root=tmp_path).symbols == names


def test_the_hash_ignores_where_and_how_fast_but_not_what(tmp_path: Path) -> None:
    plain = hash_config(load(root=tmp_path))
    assert plain == hash_config(load(pairs=["sim.speed=3"], options={"data_dir": "elsewhere"}, root=tmp_path))
    assert plain != hash_config(load(pairs=["sim.edge=0"], root=tmp_path))
