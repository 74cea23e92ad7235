"""Every feature of every set: finite in any market, blind to the future, free of scale, the same bits in any run."""

import re

import numpy as np
import pytest

from research.catalogue import ALL, CATALOGUE, DEFINITIONS, EVERY_COLUMN, FEATURE_SETS, SETS, choose, compile_chosen
from research.sets.default import DEFAULT_SETS
from tests.research.feature_programs import assert_same_bits
from tests.research.made_up_bars import BAR, DEPTH, UNKNOWN, Floats, resting, rows_of, trading, without, without_depth

N, WARM = 7000, 4800
PROGRAM = compile_chosen((ALL,), {}, BAR)
"""Of all features, over all columns."""


def features_of(values: Floats) -> Floats:
    return PROGRAM.evaluate(*rows_of(values))


@pytest.fixture(scope="module")
def busy() -> Floats:
    return trading(N, seed=1)


def names_where(is_wrong: Floats) -> list[str]:
    """Names of the features with a wrong value in any row (n, features)."""
    return [name for name, wrong in zip(CATALOGUE, is_wrong.any(axis=0), strict=True) if wrong]


def test_there_are_well_over_150_features_each_in_one_set_and_explained() -> None:
    assert len(CATALOGUE) == sum(map(len, SETS.values())) >= 200
    assert {"tob", "book", "micro", "flow", "toxicity", "liquidation", "cascade", "time", "carry"} <= set(SETS)
    assert all(each.says and each.unit for features in FEATURE_SETS.values() for each in features.values())
    assert not set(DEFINITIONS) & set(EVERY_COLUMN)
    assert all(CATALOGUE[name] == name for name in set(DEFINITIONS) & set(CATALOGUE))


def test_no_two_features_are_the_same() -> None:
    texts = list(choose((ALL,), {}, BAR).values())
    assert len(set(texts)) == len(texts)


def test_windows_fill_within_a_quarter_of_an_hour_and_a_minute() -> None:
    assert PROGRAM.warmup_bars <= WARM + 1


UNTOLD = {
    "depth is lost": (DEPTH, slice(5000, 5350)),
    "depth comes late": (DEPTH, slice(0, 5200)),
    "marks come late": (UNKNOWN, slice(0, 5200)),
}
"""Columns that are not known in some rows."""

MARKETS = {
    "nothing ever happens": resting(N),
    "a book without sizes": resting(
        N, **dict.fromkeys((name for name in EVERY_COLUMN if re.match("(bid|ask)_qty", name)), 0.0)
    ),
    "busy": trading(N, seed=1),
    "only best prices": without_depth(trading(N, seed=2)),
    "a price of 0.0001": trading(N, seed=3, scale=1e-6),
    "falls quiet": np.concatenate([trading(N - 1000, seed=4), resting(1000)]),
    "wakes": np.concatenate([resting(N - 1000), trading(1000, seed=5)]),
    **{what: without(trading(N, seed=1), *untold) for what, untold in UNTOLD.items()},
}
SILENT = ("nothing ever happens", "a book without sizes", "wakes")
"""Those in which nothing fills the buckets of volume before the windows are full."""


@pytest.mark.parametrize("market", MARKETS)
def test_every_feature_is_finite_once_the_windows_are_full(market: str) -> None:
    not_finite = names_where(~np.isfinite(features_of(MARKETS[market])[PROGRAM.warmup_bars :]))
    assert not_finite == (["vpin", "vpin_change_60s"] if market in SILENT else [])


@pytest.mark.parametrize("untold", UNTOLD)
def test_what_is_not_known_is_not_taken_for_a_value(busy: Floats, untold: str) -> None:
    """No feature is larger than where all is known, and each is the same once its windows hold nothing unknown."""
    whole, seen = features_of(busy), features_of(MARKETS[untold])
    assert names_where(np.abs(seen[WARM:]) > 1.5 * np.abs(whole[WARM:]).max(axis=0) + 1e-9) == []
    settled = UNTOLD[untold][1].stop + 1600
    apart = ~np.isclose(seen[settled:], whole[settled:], rtol=1e-6, atol=1e-9)
    slow = {name for name, text in CATALOGUE.items() if re.search("_[69]00s", text)}
    assert set(names_where(apart)) <= (slow if untold == "marks come late" else set())


def test_what_is_finite_after_a_restart_is_what_a_longer_run_gives(busy: Floats) -> None:
    """No window that is not full yet passes for one that is; but for operators that remember everything."""
    rows, index = rows_of(busy)
    whole, fresh = PROGRAM.evaluate(rows, index)[2000:], PROGRAM.evaluate(rows[2000:], index[2000:])
    apart = ~np.isclose(fresh, whole, rtol=1e-6, atol=1e-9) & np.isfinite(fresh)
    infinite = {name for name in CATALOGUE if compile_chosen((), {"x": f"(add 0 {CATALOGUE[name]})"}, BAR).is_infinite}
    assert set(names_where(apart)) <= infinite


def test_no_feature_reads_the_future(busy: Floats) -> None:
    """Rows up to a cut stay put, to the bit, whether what follows is cut off, or another market."""
    whole = features_of(busy)
    for cut in (WARM + 37, WARM + 512, N - 1):
        other = np.concatenate([busy[:cut], trading(N - cut, seed=99, scale=3.0)])
        for seen in (features_of(busy[:cut]), features_of(other)[:cut]):
            moved = (seen != whole[:cut]) & ~(np.isnan(seen) & np.isnan(whole[:cut]))
            assert names_where(moved) == [], f"before row {cut}"


def test_every_feature_moves_with_what_it_reads(busy: Floats) -> None:
    """A busy market leaves none constant, and two markets differ in all that do not tell the time."""
    y, other = features_of(busy)[WARM:], features_of(trading(N, seed=7))[WARM:]
    assert set(names_where(np.ptp(y, axis=0)[None] == 0.0)) <= CLOCKED
    same = [name for name, equal in zip(CATALOGUE, (y == other).all(axis=0), strict=True) if equal]
    assert set(same) <= CLOCKED


CLOCKED = {*SETS["time"], *SETS["calendar"]}


def test_features_do_not_depend_on_the_price_level() -> None:
    """A thousandfold price changes only logarithms of money; ranks may tell apart what rounding does."""
    y, scaled = features_of(trading(N, 6))[WARM:], features_of(trading(N, 6, scale=1000.0))[WARM:]
    money = {name for name in DEFAULT_NAMES if "log1p" in CATALOGUE[name] and "usd" in CATALOGUE[name]}
    money |= {"log_slope_10", "log_slope_balance_10"}  # growth of the logarithm of USD
    reach = np.array([0.02 if "_rank_" in name else 1e-6 for name in CATALOGUE])
    assert set(names_where(np.abs(scaled - y) > reach * np.maximum(np.abs(y), 1.0))) <= money


DEFAULT_NAMES = {name for features in DEFAULT_SETS.values() for name in features}


def test_the_whole_catalogue_gives_the_same_bits_however_it_is_run(busy: Floats) -> None:
    rows, index = rows_of(busy)
    whole = PROGRAM.evaluate(rows, index)
    assert_same_bits(PROGRAM.evaluate(rows, index, tile=61), whole)
    cut, end = WARM + 3, WARM + 303
    stream, other = PROGRAM.start(), PROGRAM.start()
    stream.run(rows[:cut], index[:cut])
    other.restore(stream.save())
    stepped = np.array([other.step(rows[k], int(index[k])) for k in range(cut, end)])
    assert_same_bits(stepped, whole[cut:end])


@pytest.mark.parametrize("bar", ["volume_10", "time_1s", "time_5m"])
def test_every_set_works_on_other_clocks(bar: str) -> None:
    program = compile_chosen((ALL,), {}, bar)
    assert len(program.names) == len(CATALOGUE)
    assert np.isfinite(program.evaluate(*rows_of(trading(N, seed=8)))[program.warmup_bars :]).all()
