"""Each feature of the newer sets against another way to it: a third party or the formula in numpy."""

from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks.references.every import REFERENCES
from benchmarks.references.windows import bars
from research.catalogue import CATALOGUE, DEFINITIONS, EVERY_COLUMN
from research.language import compile_features
from research.sets import book as sets_book
from research.sets import calendar as sets_calendar
from research.sets import derivatives as sets_derivatives
from research.sets import flow as sets_flow
from research.sets import fractal as sets_fractal
from research.sets import price as sets_price
from tests.research.made_up_bars import BAR, rows_of, trading

N = 6000


def test_every_feature_of_these_sets_has_a_reference() -> None:
    modules = (sets_book, sets_derivatives, sets_flow, sets_price, sets_fractal, sets_calendar)
    names = {name for module in modules for features in module.SETS.values() for name in features}
    assert names == {name for name in REFERENCES if name in CATALOGUE}


@pytest.mark.parametrize("seed", [1, 2])
def test_features_equal_their_references(seed: int) -> None:
    """All of a market at once: what differs is told by name. Some libraries are in the benchmark's environment only."""
    rows, index = rows_of(trading(N, seed))
    wanted = {name: each for name, each in REFERENCES.items() if not each.library or find_spec(each.library)}
    texts = {f"f{k}": each.text or CATALOGUE[name] for k, (name, each) in enumerate(wanted.items())}
    program = compile_features(texts, EVERY_COLUMN, BAR, CATALOGUE | DEFINITIONS)
    ours = program.evaluate(rows, index, take=np.array([N - 1]))[0]
    market = bars({"bar_index": index, **dict(zip(EVERY_COLUMN, rows.T, strict=True))})
    theirs = {name: each.value(market) for name, each in wanted.items()}
    apart = {
        name: (value, got)
        for (name, value), got in zip(theirs.items(), ours, strict=True)
        if not np.isclose(got, value, rtol=wanted[name].rtol, atol=1e-10)
    }
    assert apart == {}
    assert len(theirs) > 120
