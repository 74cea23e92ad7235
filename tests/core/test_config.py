"""The configuration: layers, overrides, and errors that hold the path of the wrong key."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.config import PROFILES, REGULAR_FEES, Config, Hosts, hash_config, load
from core.errors import ConfigError
from core.servers import local_hosts


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


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("source=lve", "source: one of sim, replay, archive, live, was 'lve': did you mean `live`? - at `$.source`"),
        ("capture.depth=50ms", "one of off, 100ms, 250ms, 500ms, 1000ms, was '50ms': did you mean `500ms`?"),
        ("capture.partial_depth=7", "capture.partial_depth: one of 0, 5, 10, 20, was 7 - at"),
        ('capture.klines=["7m"]', "capture.klines[0]: one of 1s, 1m, 3m"),
        ("capture.klines=1m", "capture.klines: a list such as ['1m'], was '1m' - at"),
        (
            "export_events.start=2026-11-22",
            "such as 2026-11-22T09:00:00Z or 2026-11-22T09:00:00.250Z, was '2026-11-22'",
        ),
        ("poll.duration=5x", "poll.duration: once, forever, or a length of time such as 90m or 7d, was '5x'"),
        ("bars=tme_5s", "bars: a clock and its size such as time_200ms, volume_5"),
        ("backfill.from=20260101", 'backfill.from: a UTC day such as "2026-11-22", or empty, was 20260101'),
        ("faults.rest=500ms", "faults.rest: one of 403, 418"),
        ("faults.drop.quote=0.1", "faults.drop: one of quotes, trades"),
        ("poll.providers.mine.host=example.org", "poll.providers.mine.host: must begin with http:// or https://, or"),
        (
            "symbols=binanceum:BTCUSDT",
            "symbols: unknown venue 'binanceum' in 'binanceum:BTCUSDT': did you mean `binance_um`?",
        ),
        ("symbols=kraken:BTCUSDT", "known are binance, binance_um"),
        ("seed=x", "seed: expected `int`, got `str`, was 'x' - at `$.seed`"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_permitted(pair: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(pairs=[pair], root=tmp_path)
    assert message in str(caught.value)
    assert "regex" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("capture.hosts.bybit_ws", "localhost:1"),
        ("capture.hosts.bybit_ws", "http://localhost:1"),
        ("capture.hosts.bybit_ws", "ws://localhost:70000"),
        ("capture.hosts.bybit_ws", "ws://localhost:1/"),
        ("capture.hosts.binance_ws", "ws://192.0.2.1:9000"),
        ("capture.hosts.binance_cm_ws", "wss://fstream.binance.com"),
        ("capture.hosts.bybit_rest", "ws://localhost:1"),
        ("backfill.hosts.binance", "data.binance.vision"),
        ("backfill.hosts.tardis", "ftp://datasets.tardis.dev"),
        ("poll.providers.mine.host", "wss://example.org"),
        ("poll.providers.mine.host", "binance_um_ws"),
    ],
)
def test_a_host_without_its_scheme_is_refused_at_once(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must begin with ") as caught:
        load(pairs=[f"{key}={value}"], root=tmp_path)
    assert str(caught.value).startswith(f"{key}: ")
    assert str(caught.value).endswith(f"was {value!r} - at `$.{key}`")


def test_hosts_of_ones_own_are_taken(tmp_path: Path) -> None:
    """Local servers, mirrors, and every REST host as that of a poll's provider."""
    local = [f"capture.hosts.{name}={url}" for name, url in msgspec.structs.asdict(local_hosts("[::1]:65535")).items()]
    mirror = "backfill.hosts.binance=https://mirror.example.org/binance"
    assert load(pairs=[*local, mirror], root=tmp_path).capture.hosts == local_hosts("[::1]:65535")
    for name in Hosts.__struct_fields__:
        if name.endswith("_rest"):
            load(pairs=[f"poll.providers.mine.host={name}"], root=tmp_path)


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


def settings_in(kind: type[msgspec.Struct], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all settings and sections."""
    for field in msgspec.structs.fields(kind):
        path = *above, field.encode_name
        yield path
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from settings_in(field.type, path)


def refusal_of(value: object, path: tuple[str, ...], root: Path) -> str:
    """Why a value cannot stand at a path; empty if it can."""
    tree: dict[str, object] = {path[-1]: value}
    for name in reversed(path[:-1]):
        tree = {name: tree}
    try:
        load(options=tree, root=root)
    except ConfigError as error:
        return str(error)
    return ""


USERS_OWN = [("fees", "kraken"), ("faults", "drop", "quotes"), ("poll", "providers", "a"), ("poll", "collectors", "a")]


@pytest.mark.parametrize("value", ["x", 1, -1.5, True, [], [[]], ["x"], {}, {"a": 1}, {"a": {"b": [1]}}, [{"a": 1}]])
def test_whatever_stands_at_a_setting_is_taken_or_an_error_with_a_path(value: object, tmp_path: Path) -> None:
    for path in (*settings_in(Config), *USERS_OWN):
        message = refusal_of(value, path, tmp_path)
        assert not message or f"`$.{path[0]}" in message or "at `$`" in message
