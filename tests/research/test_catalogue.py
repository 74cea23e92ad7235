"""The default sets on made-up markets: quiet, busy, scaled, bursting; the choice of sets and of one's own features."""

import hashlib
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from core.config import Features
from core.errors import ConfigError
from core.store import day_start_ns
from core.units import NS_PER_S
from research.bars.columns import BAR_COLUMNS
from research.catalogue import ALL, DEFINITIONS, FEATURE_COLUMNS, choose, compile_chosen, feature_rows
from research.catalogue import SETS as ALL_SETS
from research.language import compile_features
from research.programs.expression import parse, parts, show
from research.sets.default import DEFAULT_SETS
from tests.research.feature_programs import assert_same_bits

Floats = NDArray[np.float64]
STEP_NS = NS_PER_S // 5
BAR = "time_200ms"
N = 3000
SETS = {name: ALL_SETS[name] for name in DEFAULT_SETS}
CATALOGUE = {name: text for features in SETS.values() for name, text in features.items()}


def market(**columns: float | Floats) -> Floats:
    """Bars (N, 25) of a standing book at 100 with nothing else, but for `columns`."""
    standing = {"bid_price": 99.99, "ask_price": 100.01, "bid_qty": 3.0, "ask_qty": 5.0, "is_empty": 1.0}
    standing |= dict.fromkeys(("open_price", "high_price", "low_price", "close_price"), 100.0)
    standing |= dict.fromkeys(("mark_price", "index_price", "funding_rate", "open_interest", "funding_s"), np.nan)
    values = standing | columns
    return np.column_stack([np.broadcast_to(values.get(name, 0.0), N) for name in BAR_COLUMNS])


def busy_market(seed: int, scale: float = 1.0) -> Floats:
    """A random walk with trades, OFI, liquidations and marks; prices and money times `scale`."""
    rng = np.random.default_rng(seed)
    mid = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-4, N))) * scale
    active = rng.random((N, 12)) < 0.3
    flow = rng.lognormal(0.0, 1.0, (N, 12)) * active
    prices = {
        "bid_price": mid * 0.9999,
        "ask_price": mid * (1.0001 + 1e-4 * rng.random(N)),
        "close_price": mid,
        "open_price": mid,
    }
    prices |= {"high_price": mid * 1.0002, "low_price": mid * 0.9998, "mark_price": mid, "index_price": mid * 0.9999}
    qty = {"bid_qty": 1 + flow[:, 0], "ask_qty": 1 + flow[:, 1], "buy_qty": flow[:, 2], "sell_qty": flow[:, 3]}
    usd = {"buy_usd": flow[:, 2] * mid, "sell_usd": flow[:, 3] * mid, "liq_long_usd": flow[:, 4] * mid}
    counts = {
        "buy_count": active[:, 2],
        "sell_count": active[:, 3],
        "quote_count": active[:, 5],
        "liq_count": active[:, 4],
    }
    rest = {"ofi_qty": rng.normal(size=N), "funding_rate": 1e-4, "open_interest": 1e4 + np.cumsum(rng.normal(size=N))}
    return market(**(prices | qty | usd | counts | rest | {"is_empty": 0.0}))


def features_of(values: Floats, bar: str = BAR) -> Floats:
    close_ns = day_start_ns("2026-01-05") + STEP_NS * np.arange(1, N + 1)
    return compile_chosen(Features().sets, {}, bar).evaluate(feature_rows(values, close_ns), close_ns // STEP_NS - 1)


def column(y: Floats, name: str) -> Floats:
    return y[:, list(CATALOGUE).index(name)]


def test_the_default_study_is_the_eight_sets_of_old() -> None:
    assert tuple(DEFAULT_SETS) == Features().sets
    assert len(CATALOGUE) == sum(map(len, SETS.values())) == 76
    texts = "\n".join(f"{name} {text}" for name, text in choose(Features().sets, {}, BAR).items())
    assert (
        hashlib.sha256(texts.encode()).hexdigest() == "bddd8a50dc74704eb349ae768d57e44a85416e4558ec314459badd5aaf1136db"
    )


def test_windows_fill_within_five_minutes_and_few_bars() -> None:
    assert compile_chosen(Features().sets, {}, BAR).warmup_bars <= 1505


@pytest.mark.parametrize(
    "values",
    [market(), market(bid_qty=0.0, ask_qty=0.0), busy_market(1), busy_market(2, scale=1e-6)],
    ids=["no trades, constant price", "empty book sizes", "busy", "a price of 0.0001"],
)
def test_every_feature_is_finite_once_the_windows_are_full(values: Floats) -> None:
    y = features_of(values)[1505:]
    assert [name for k, name in enumerate(CATALOGUE) if not np.isfinite(y[:, k]).all()] == []


def test_a_market_that_falls_quiet_or_wakes_stays_finite() -> None:
    half = np.arange(N)[:, None] < 1700
    for first, second in ((busy_market(1), market()), (market(), busy_market(1))):
        assert np.isfinite(features_of(np.where(half, first, second))[1505:]).all()


def test_a_quiet_market_says_nothing() -> None:
    y = features_of(market())[1505:]
    level = {
        "spread_bps",
        "imbalance",
        "imbalance_mean_1s",
        "imbalance_mean_5s",
        "micro_edge_bps",
        "micro_edge_mean_2s",
    }
    moving = [k for k, name in enumerate(CATALOGUE) if name not in level | set(SETS["time"])]
    np.testing.assert_array_equal(y[:, moving], 0.0)


def test_features_do_not_depend_on_the_price_level() -> None:
    """One model serves all symbols: a thousandfold price changes only the logarithms of money, and those by a shift."""
    y, scaled = features_of(busy_market(3))[1505:], features_of(busy_market(3, scale=1000.0))[1505:]
    money = {name for name in CATALOGUE if "log1p" in CATALOGUE[name] and "usd" in CATALOGUE[name]}
    free = [k for k, name in enumerate(CATALOGUE) if name not in money]
    np.testing.assert_allclose(scaled[:, free], y[:, free], rtol=1e-6, atol=1e-6)
    assert len(money) <= 12


def test_a_one_sided_burst_shows_at_once_and_with_its_sign() -> None:
    rng = np.random.default_rng(4)
    calm = {"ofi_qty": rng.normal(size=N), "buy_usd": 100.0, "sell_usd": 100.0, "buy_count": 1.0, "sell_count": 1.0}
    bursting = np.isin(np.arange(N), np.arange(2500, 2510))  # two seconds
    seen = dict(calm, ofi_qty=calm["ofi_qty"] - 10.0 * bursting, sell_usd=100.0 + 5000.0 * bursting)
    quiet, burst = features_of(market(**calm)), features_of(market(**seen))
    for name, least in {
        "ofi_1": 5,
        "ofi_1s": 5,
        "signed_flow_1": 5,
        "trade_imbalance_1s": 0.5,
        "ofi_balance_1s": 0.5,
    }.items():
        change = column(burst, name) - column(quiet, name)
        assert change[2502] < -least * 0.7, name  # within three bars
        assert np.abs(change[:2500][1505:]).max() == 0.0, name
    assert column(burst, "hit_bid_notional_1s")[2504] > column(quiet, "hit_bid_notional_1s")[2504] + 2.0


def test_some_features_by_hand() -> None:
    rise = 100.0 * np.exp(1e-5 * np.arange(N))
    prices = {"bid_price": rise * 0.9999, "ask_price": rise * 1.0001, "close_price": rise}
    flow = {"buy_usd": 300.0, "sell_usd": 100.0, "funding_rate": 1e-4, "mark_price": rise, "index_price": rise * 0.999}
    row = features_of(market(**prices, **flow))[-1]
    by_name = dict(zip(CATALOGUE, row, strict=True))
    assert by_name["spread_bps"] == pytest.approx(2.0)
    assert by_name["imbalance"] == pytest.approx((3 - 5) / 8)
    assert by_name["micro_edge_bps"] == pytest.approx(0.5 * 2.0 * (3 - 5) / 8)
    assert by_name["return_bps_1s"] == pytest.approx(0.5)
    assert by_name["return_bps_60s"] == pytest.approx(30.0)
    assert by_name["trade_imbalance_5s"] == pytest.approx(0.5)
    assert by_name["hit_ask_notional_10s"] == pytest.approx(np.log1p(50 * 300))
    assert by_name["hit_bid_notional_10s"] == pytest.approx(np.log1p(50 * 100))
    assert by_name["premium_bps"] == pytest.approx(1e4 * (1 / 0.999 - 1))
    assert by_name["funding_bps"] == pytest.approx(1.0)
    assert by_name["day_frac"] == pytest.approx(600 / 86_400)
    assert by_name["hours_to_funding"] == pytest.approx(8 - 1 / 6)
    assert (by_name["is_asia"], by_name["is_europe"], by_name["is_us"]) == (1, 0, 0)


@pytest.mark.parametrize(("hour", "wanted"), [(0, 8), (7.5, 0.5), (8, 8), (15, 1), (16, 8), (23.75, 0.25)])
def test_hours_to_funding_are_the_venues_and_without_them_count_down_to_0_8_and_16_h(
    hour: float, wanted: float
) -> None:
    text = choose(("time",), {}, BAR)["hours_to_funding"]
    program = compile_features({"f": text}, ["second_of_day", "funding_s"])
    told = program.evaluate(np.array([[hour * 3600, np.nan], [hour * 3600, 5400.0], [hour * 3600, -2.0]]))
    assert told[:, 0].tolist() == [wanted, 1.5, 0.0]


def test_what_a_manifest_keeps_compiles_over_the_columns_alone() -> None:
    chosen = choose(Features().sets, {}, BAR)
    assert list(chosen) == list(CATALOGUE)
    program = compile_features(chosen, FEATURE_COLUMNS, BAR)
    assert program.expressions == tuple(chosen.values())
    assert all(show(parse(text)) == text for text in chosen.values())
    assert not {"mid", "traded_usd"} & set(FEATURE_COLUMNS)


def test_definitions_hide_no_column_and_agree_with_features_of_their_name() -> None:
    assert not set(DEFINITIONS) & set(FEATURE_COLUMNS)
    assert all(CATALOGUE[name] == name for name in set(DEFINITIONS) & set(CATALOGUE))


@pytest.mark.parametrize("bar", ["volume_10", "time_5m", "time_400ms"])
def test_a_clock_without_the_windows_counts_their_bars_and_says_so(bar: str) -> None:
    chosen = choose(Features().sets, {}, bar)
    assert "return_bps_25" in chosen
    assert "volatility_ratio_50_1500" in chosen
    assert len(chosen) == len(CATALOGUE)
    assert_same_bits(features_of(busy_market(5), bar), features_of(busy_market(5)))


@pytest.mark.parametrize("bar", [BAR, "time_1s", "time_2s", "time_5m", "volume_10"])
def test_a_feature_is_the_same_whatever_else_is_chosen(bar: str) -> None:
    everything = choose((ALL,), {}, bar)
    apart = {name: text for each in ALL_SETS for name, text in choose((each,), {}, bar).items()}
    assert apart == everything


def test_a_window_too_short_for_its_operator_alone_is_as_long_as_that_needs() -> None:
    on_seconds, reference = choose((ALL,), {}, "time_1s"), choose((ALL,), {}, BAR)
    assert set(on_seconds) - set(reference) == {"hurst_64"}
    assert "(hurst_64 " in on_seconds["hurst_64"]
    assert set(reference) - set(on_seconds) == {"hurst_60s"}


def test_all_windows_of_time_are_whole_seconds() -> None:
    windows = [part.window for text in choose((ALL,), {}, BAR).values() for part in parts(parse(text)) if part.window]
    assert [window for window in windows if not re.fullmatch("[0-9]+s?", window)] == []


def test_sets_are_chosen_by_name_in_the_order_of_the_catalogue() -> None:
    assert list(choose(("time", "tob"), {}, BAR)) == [*SETS["tob"], *SETS["time"]]
    with pytest.raises(ConfigError, match=r"no set is 'tobb', did you mean tob\?.* fitted, .*at `\$\.features\.sets`"):
        choose(("time", "tobb"), {}, BAR)
    with pytest.raises(ConfigError, match=r"needs a set or features\.mine.*at `\$\.features\.sets`"):
        choose((), {}, BAR)


def test_features_of_ones_own_may_use_names_of_the_catalogue() -> None:
    mine = {"my_signal": "(sub imbalance (mean_25 imbalance))", "mine_too": "(neg ofi_5s)"}
    chosen = choose(("time",), mine, BAR)
    assert chosen["my_signal"].startswith("(sub (ratio (sub bid_qty ask_qty)")
    assert "(sum_5s ofi_qty)" in chosen["mine_too"]
    assert list(choose((), mine, BAR)) == list(mine)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine", "(sub imbalance", "never closed"),
        ("mine", "(sub imbalanc 1)", "did you mean imbalance"),
        ("mine", "(mean_5s ofi_qty)", "count bars instead"),
        ("mine", "volume", "unknown name volume, did you mean volume_usd or volume_qty"),
        ("mine", "(zscore_300 ofi)", "unknown name ofi, did you mean ofi_qty or ofi_qty_1"),
        ("imbalance", "ofi_qty", "'imbalance' is a definition of the language: name yours otherwise"),
        ("mid", "(neg close_price)", "'mid' is a definition of the language: name yours otherwise"),
        ("vpin", "(neg close_price)", "'vpin' is a feature of the catalogue: name yours otherwise"),
        ("bid_price", "ofi_qty", "'bid_price' is a column of the bars: name yours otherwise"),
        ("my-signal", "ofi_qty", "letters, digits and _"),
        ("decision_ns", "ofi_qty", "is a column of the tables"),
        ("symbol", "ofi_qty", "is a column of the tables"),
        ("bars", "ofi_qty", "is a column of the tables"),
    ],
)
def test_errors_in_ones_own_features_hold_their_path(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        choose(Features().sets, {name: text}, "volume_10" if "5s" in text else BAR)
    assert f"at `$.features.mine.{name}`" in str(caught.value)


def test_ones_own_feature_may_use_those_that_stand_before_it() -> None:
    mine = {"gap": "(sub ask_price bid_price)", "slow": "(mean_5s gap)", "last": "(add slow mid)"}
    chosen = choose((), mine, BAR)
    assert chosen["slow"] == "(mean_5s (sub ask_price bid_price))"
    assert chosen["last"] == f"(add {chosen['slow']} {show(parse(DEFINITIONS['mid']))})"
    with pytest.raises(ConfigError, match=r"(?s)unknown name gap.*`\$\.features\.mine\.slow`"):
        choose((), {"slow": mine["slow"], "gap": mine["gap"]}, BAR)


@pytest.mark.parametrize("bar", ["volume_10", "time_2s", "time_1m", "time_400ms"])
def test_ones_own_features_use_the_catalogue_on_any_clock_by_either_name(bar: str) -> None:
    mine = {"a": "(neg return_bps_5s)", "b": "(neg return_bps_25)", "c": "(neg range_bps)", "d": "(neg vwap_300s)"}
    chosen = choose((), mine, bar)
    assert chosen["a"] == chosen["b"] == f"(neg {choose(('momentum',), {}, bar)['return_bps_25']})"
    assert "(max_50 high_price)" in chosen["c"]
    assert "(sum_1500 " in chosen["d"]
    with pytest.raises(ConfigError, match="'return_bps_25' is a feature of the catalogue"):
        choose((), {"return_bps_25": "close_price"}, bar)
    assert list(choose((), {"return_bps_25": "close_price"}, BAR)) == ["return_bps_25"]


def test_names_of_the_catalogue_stand_in_joins_as_they_are_on_those_bars() -> None:
    mine = {"a": "(at_volume_10 return_bps_5s)", "b": "(at_1m (mean_20 range_bps))", "c": "(at_1s range_bps)"}
    chosen = choose((), mine, BAR)
    assert chosen["a"] == f"(at_volume_10 {choose(('momentum',), {}, 'volume_10')['return_bps_25']})"
    assert "(max_50 high_price)" in chosen["b"]
    assert "(max_10s high_price)" in chosen["c"]


@pytest.mark.parametrize("bar", [BAR, "time_1s", "time_2s", "volume_10"])
def test_a_name_means_one_thing_on_a_clock(bar: str) -> None:
    """No feature is called there what another one is called in the catalogue."""
    there = choose((ALL,), {}, bar)
    by_name = choose((), {f"mine_{name}": name for name in there}, bar)
    assert by_name == {f"mine_{name}": text for name, text in there.items()}
    old_names = choose((), {f"mine_{name}": name for features in ALL_SETS.values() for name in features}, bar)
    assert list(old_names.values()) == list(there.values())


def test_volume_and_vwap_are_those_of_the_bar() -> None:
    texts = choose((), {"gap": "(sub close_price vwap)", "usd": "volume_usd", "qty": "volume_qty"}, BAR)
    flow = {"buy_qty": 3.0, "sell_qty": np.where(np.arange(N) < 5, 1.0, -3.0), "buy_usd": 300.0, "sell_usd": 101.0}
    rows = feature_rows(market(**flow, close_price=101.0), np.arange(N))
    y = compile_features(texts, FEATURE_COLUMNS, BAR).evaluate(rows)
    np.testing.assert_allclose(y[0], [101.0 - 401.0 / 4.0, 401.0, 4.0])
    assert y[7, 0] == 1.0, "where nothing was traded it is the mid"
