"""Joins of clocks, symbols and cross-sections against a slow twin, and that nothing of the future is in them."""

import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.units import NS_PER_S
from research.bars.bar_pass import ClosedBars
from research.bars.clocks import parse_clock
from research.bars.columns import BAR_COLUMNS
from research.catalogue import DEFINITIONS, FEATURE_COLUMNS, feature_rows
from research.language import compile_features, expand
from research.programs.expression import Node, parse, parts, show
from research.programs.panel import Panel
from research.programs.panel_program import PanelProgram, compile_panel

NAMES = ("binance:ADA", "binance:BTC", "bybit:ADA", "bybit:BTC")
MAIN = "time_1s"
BEGIN_NS = 1_699_999_980 * NS_PER_S  # a whole minute
SECONDS = 240
TEXTS = {
    "coarse": "(sub close_price (at_5s (mean_4 close_price)))",
    "fine": "(at_200ms (delta_1s close_price))",
    "trades": "(at_volume_10 (sub close_price (lag_3 close_price)))",
    "other": "(corr_20s bar_return_bps (of_BTC bar_return_bps))",
    "venue": "(beta_20s bar_return_bps (of_bybit:BTC bar_return_bps))",
    "rank": "(cs_rank (sum_3s signed_usd))",
    "score": "(mean_2 (cs_zscore spread_bps))",
    "nested": "(sub (at_5s (cs_mean (of_ADA close_price))) (of_BTC (at_5s (cs_rank (at_200ms bid_qty)))))",
    "plain": "(zscore_10 spread_bps)",
}
Bars = dict[tuple[str, str], ClosedBars]


def made_up(name: str, clock: str) -> ClosedBars:
    """Random bars of four minutes with gaps, some of them missing; on other clocks than time at any instants."""
    rng = np.random.default_rng([ord(letter) for letter in name + clock])
    step_ns = parse_clock(clock).step_ns
    index = np.arange(SECONDS * NS_PER_S // (step_ns or 3 * NS_PER_S))
    close_ns = BEGIN_NS + (index + 1) * step_ns
    if not step_ns:
        close_ns = np.sort(rng.integers(BEGIN_NS, BEGIN_NS + SECONDS * NS_PER_S, index.size))
    values = rng.lognormal(0.0, 0.5, (index.size, len(BAR_COLUMNS)))
    for column in ("has_gap", "is_empty"):
        values[:, BAR_COLUMNS.index(column)] = rng.random(index.size) < 0.005
    values[:, BAR_COLUMNS.index("bid_qty")] = rng.integers(1, 4, index.size)
    values[rng.random(index.size) < 0.01, BAR_COLUMNS.index("buy_usd")] = np.nan
    kept = rng.random(index.size) > 0.005
    kept[(close_ns > BEGIN_NS + 100 * NS_PER_S) & (close_ns < BEGIN_NS + 115 * NS_PER_S)] &= name != "bybit:BTC"
    bar_index = BEGIN_NS // (step_ns or 1) + index
    return ClosedBars(close_ns[kept] - (step_ns or 1), close_ns[kept], bar_index[kept], values[kept])


@pytest.fixture(scope="module")
def bars() -> Bars:
    return {(name, clock): made_up(name, clock) for name in NAMES for clock in program().clocks}


def program(texts: dict[str, str] = TEXTS) -> PanelProgram:
    return compile_panel(texts, FEATURE_COLUMNS, MAIN, DEFINITIONS)


def evaluate(panel: Panel, bars: Bars, use: Callable[[ClosedBars], Any]) -> dict[str, np.ndarray]:
    """Features of the bars that `use` picks, one push."""
    picked = {place: picked_bars(each, use(each)) for place, each in bars.items()}
    return panel.run(lambda name, clock: picked[name, clock])


def picked_bars(bars: ClosedBars, which: Any) -> ClosedBars:
    return ClosedBars(bars.open_ns[which], bars.close_ns[which], bars.bar_index[which], bars.values[which])


def everything(_: ClosedBars) -> slice:
    return slice(None)


def twin(tree: Node, name: str, clock: str, bars: Bars) -> np.ndarray:
    """The expression at each bar, every join looked up bar by bar."""
    mine = bars[name, clock]
    joins = [part for part in parts(tree, into_joins=False) if part.join]
    columns = [looked_up(part, name, clock, bars) for part in joins]
    single = compile_features({"f": tree}, (*FEATURE_COLUMNS, *map(show, joins)), clock)
    rows = np.column_stack([feature_rows(mine.values, mine.close_ns), *columns])
    return single.evaluate(rows, mine.bar_index)[:, 0]


def looked_up(part: Node, name: str, clock: str, bars: Bars) -> list[float]:
    join, operand = part.join, part.args[0]
    assert join is not None
    if join.is_cross_section:
        known = [dict(zip(bars[each, clock].close_ns, twin(operand, each, clock, bars), strict=True)) for each in NAMES]
        own = known[NAMES.index(name)]
        return [
            compared(join.form, own[at], [each.get(at, math.nan) for each in known])
            for at in bars[name, clock].close_ns
        ]
    target, inner = join.target(name), join.clock(clock)
    closes, values = bars[target, inner].close_ns.tolist(), twin(operand, target, inner, bars).tolist()
    return [last_value(at, closes, values, parse_clock(inner).step_ns) for at in bars[name, clock].close_ns.tolist()]


def last_value(at_ns: int, closes: list[int], values: list[float], step_ns: int) -> float:
    closed = [(close_ns, value) for close_ns, value in zip(closes, values, strict=True) if close_ns <= at_ns]
    if not closed or (step_ns and closed[-1][0] + step_ns <= at_ns):
        return math.nan
    return closed[-1][1]


def compared(form: str, own: float, values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    if math.isnan(own):
        return math.nan
    if form == "cs_rank":
        others = len(known) - 1
        return (sum(v < own for v in known) + 0.5 * (sum(v == own for v in known) - 1)) / others if others else 0.5
    mean = sum(known) / len(known)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in known) / len(known))
    return mean if form == "cs_mean" else (own - mean) / deviation if deviation > 1e-13 * abs(mean) else 0.0


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_joins_are_what_a_look_at_every_closed_bar_finds(bars: Bars) -> None:
    found = evaluate(Panel(program(), NAMES), bars, everything)
    for name in NAMES:
        for k, (feature, text) in enumerate(TEXTS.items()):
            expected = twin(expand(text, FEATURE_COLUMNS, DEFINITIONS), name, MAIN, bars)
            np.testing.assert_allclose(found[name][:, k], expected, rtol=1e-13, err_msg=f"{name} {feature}")
            assert np.isfinite(expected).sum() > SECONDS / 3, feature


@example(cuts=[BEGIN_NS + k * NS_PER_S for k in range(SECONDS)], saved=90, tile=1)  # as the runner steps
@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(BEGIN_NS, BEGIN_NS + SECONDS * NS_PER_S), max_size=12),
    saved=st.integers(0, 12),
    tile=st.sampled_from([1, 7, 512]),
)
def test_no_bit_hangs_on_how_bars_are_handed_over_nor_on_a_save_in_between(
    cuts: list[int], saved: int, tile: int, bars: Bars
) -> None:
    whole, panel = evaluate(Panel(program(), NAMES), bars, everything), Panel(program(), NAMES, tile)
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    bounds = [0, *sorted(cuts), 2**62]
    for number, (after_ns, until_ns) in enumerate(pairwise(bounds)):
        if number == saved:
            states, panel = {name: panel.save(name) for name in NAMES}, Panel(program(), NAMES, tile)
            for name in NAMES:
                panel.restore(name, states[name])
        for name, each in evaluate(panel, bars, lambda b: (b.close_ns > after_ns) & (b.close_ns <= until_ns)).items():  # noqa: B023 (called at once)
            pieces[name].append(each)
    assert_same(whole, {name: np.concatenate(each) for name, each in pieces.items()})


@pytest.mark.parametrize("at_s", [61, 100, 137])
def test_no_join_sees_a_bar_that_closes_later(at_s: int, bars: Bars) -> None:
    until_ns = BEGIN_NS + at_s * NS_PER_S
    rng = np.random.default_rng(1)
    other = {}
    for place, each in bars.items():
        noise = rng.normal(size=each.values.shape) * (each.close_ns > until_ns)[:, None]
        other[place] = ClosedBars(each.open_ns, each.close_ns, each.bar_index, each.values + noise)
    seen, perturbed = (evaluate(Panel(program(), NAMES), some, everything) for some in (bars, other))
    cut = evaluate(Panel(program(), NAMES), bars, lambda each: each.close_ns <= until_ns)
    for name in NAMES:
        rows = bars[name, MAIN].close_ns <= until_ns
        np.testing.assert_array_equal(seen[name][rows], perturbed[name][rows])
        np.testing.assert_array_equal(seen[name][rows], cut[name])
        assert not np.array_equal(seen[name][~rows], perturbed[name][~rows], equal_nan=True)


def test_the_bar_that_closes_at_the_same_instant_counts_and_the_open_one_does_not(bars: Bars) -> None:
    found = evaluate(Panel(program({"last": "(at_5s close_price)"}), NAMES), bars, everything)[NAMES[0]][:, 0]
    mine, coarse = bars[NAMES[0], MAIN], bars[NAMES[0], "time_5s"]
    value_at = dict(zip(coarse.close_ns.tolist(), coarse.values[:, BAR_COLUMNS.index("close_price")], strict=True))
    gap = BAR_COLUMNS.index("has_gap")
    has_gap = dict(zip(coarse.close_ns.tolist(), coarse.values[:, gap], strict=True))
    for close_ns, own_gap, value in zip(mine.close_ns.tolist(), mine.values[:, gap], found, strict=True):
        at_ns = close_ns - close_ns % (5 * NS_PER_S)
        expected = math.nan if own_gap or has_gap.get(at_ns, 1.0) else value_at[at_ns]
        assert value == expected or (math.isnan(value) and math.isnan(expected))


def test_state_of_more_features_serves_fewer_and_others_are_refused(bars: Bars) -> None:
    few = {name: TEXTS[name] for name in ("nested", "other")}
    more, fewer = Panel(program(), NAMES), Panel(program(few), NAMES)
    half_ns = BEGIN_NS + SECONDS // 2 * NS_PER_S
    evaluate(more, bars, lambda each: each.close_ns <= half_ns)
    for name in NAMES:
        fewer.restore(name, more.save(name))
    late = evaluate(fewer, bars, lambda each: each.close_ns > half_ns)
    whole = evaluate(Panel(program(few), NAMES), bars, everything)
    assert_same(late, {name: whole[name][-len(late[name]) :] for name in NAMES})
    with pytest.raises(ValueError, match=r"saved by other features, which lack \(mean_3 close_price\)"):
        Panel(program({"f": "(at_5s (mean_3 close_price))"}), NAMES).restore(NAMES[0], more.save(NAMES[0]))
    with pytest.raises(ValueError, match="saved by other features"):
        Panel(program({"f": "(at_30s close_price)"}), NAMES).restore(NAMES[0], more.save(NAMES[0]))


def test_an_operand_is_computed_once_per_symbol_for_all_who_ask() -> None:
    twice = {"a": "(of_bybit:BTC (zscore_20 spread_bps))", "b": "(sub (of_bybit:BTC (zscore_20 spread_bps)) 1)"}
    compiled = program(twice)
    assert [layer.program.names for layer in compiled.layers[:-1]] == [
        (show(expand("(zscore_20 spread_bps)", FEATURE_COLUMNS, DEFINITIONS)),)
    ]
    assert compiled.asked(NAMES)[0] == ("bybit:BTC",)


UNJOINED = {
    "(neg (of_SOL bid_qty))": (MAIN, "binance:SOL is none of the symbols of the run, binance:ADA, binance:BTC", 6),
    "(add 1 (cs_rank mid))": ("volume_10", "cs_rank compares bars that close at the same instant", 8),
    "(at_1m (mean_90s mid))": (MAIN, "a window of 90s is not a whole number of bars of 1m", 8),
    "(at_7x mid)": (MAIN, "at_7x: at_ takes a clock of bars, as in at_1m or at_volume_100", 1),
    "(at_1min mid)": (MAIN, "as in at_1m or at_volume_100, did you mean at_1m?", 1),
    "(neg (at_30_seconds mid))": (MAIN, "did you mean at_30s?", 6),
    "(neg (of_AD bid_qty))": (MAIN, "binance:AD is none of the symbols of the run, binance:ADA, binance:BTC", 6),
    "(neg (of_ mid))": (MAIN, "of_ takes a symbol, as in of_ETHUSDT or of_bybit:ETHUSDT", 6),
    "(cs_median mid)": (MAIN, "the cross-sections are cs_rank, cs_mean, cs_zscore", 1),
    "(at_1m mid 2)": (MAIN, "(at_1m x) takes 1 operand, was given 2", 1),
}


@pytest.mark.parametrize("text", UNJOINED)
def test_what_cannot_be_joined_is_an_error_that_points_at_the_place(text: str) -> None:
    bar, message, column = UNJOINED[text]
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        compile_panel({"f": text}, FEATURE_COLUMNS, bar, DEFINITIONS).asked(NAMES)
    shown, caret = str(caught.value).splitlines()[-2:]
    assert (shown, caret) == (f"  {text}", f"  {' ' * column}^")


def test_a_symbol_that_is_half_named_is_told_in_the_words_that_were_written() -> None:
    mine = {"f": "(neg (of_AD log_mid))"}
    with pytest.raises(ValueError, match=re.escape("did you mean of_ADA? or add it to `symbols`")) as caught:
        compile_panel(mine, FEATURE_COLUMNS, MAIN, DEFINITIONS).asked(NAMES, texts=mine)
    assert str(caught.value).splitlines()[-2:] == [f"  {mine['f']}", "        ^"]


@pytest.mark.parametrize(
    "theirs",
    ["(of_okx:BTC mid)", "(of_okx:ADA (of_BTC mid))", "(cs_rank (of_okx:BTC mid))", "(at_1m (of_okx:BTC mid))"],
)
def test_a_symbol_that_is_missing_is_blamed_on_who_asks_for_it(theirs: str) -> None:
    features = {"beta": "(beta_30 mid (of_BTC mid))", "z": theirs}
    with pytest.raises(ValueError, match=r"^feature z: okx:(ADA|BTC) is none .* or add it to `symbols`\n"):
        program(features).asked(NAMES)


def test_rows_alone_cannot_be_joined() -> None:
    with pytest.raises(
        ValueError, match=r"(?s)at_1m needs bars of another clock or symbol.*\n  \(neg \(at_1m a\)\)\n        \^"
    ):
        compile_features({"f": "(neg (at_1m a))"}, ["a"], "1s")
    columns = ["a", "(at_1m (mean_5 a))"]
    np.testing.assert_array_equal(
        compile_features({"f": "(sub a (at_1m (mean_5 a)))"}, columns, "1s").evaluate(np.array([[3.0, 1.0]])), [[2.0]]
    )


@pytest.mark.parametrize(
    "text", ["(at_1m (of_binance_um:1000PEPEUSDT a))", "(of_BTC-27DEC24 (cs_zscore a))", "(at_volume_0.5 a)"]
)
def test_joins_are_printed_as_they_are_written(text: str) -> None:
    assert show(parse(text)) == text
