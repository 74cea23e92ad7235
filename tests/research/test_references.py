"""Each feature against another way to it: a third party's function, its paper's formula, or its definition in numpy.

What a third party gave on a fixed market is stored (benchmarks/references/golden.csv) and compared always; what is
installed is called as well.
"""

import re

import numpy as np
import pytest

from benchmarks.reference_indicators import DOCS, JOINED, ROOT, SEED, our_values, page, stored
from benchmarks.reference_market import FRIDAY, ROWS, columns_to, market
from benchmarks.references.every import REFERENCES
from benchmarks.references.windows import DEFINITION, PAPER, THIRD_PARTY, bars
from benchmarks.run_references import is_here
from research.catalogue import CATALOGUE
from research.programs.program import Floats

SATURDAY = "2026-02-28T12:42Z"
REMEDY = "run `python benchmarks/reference_indicators.py`"
PINNED = ROOT / "benchmarks" / "requirements-references.txt"


def differing(ours: dict[str, Floats], theirs: dict[str, Floats]) -> dict[str, tuple[list[float], list[float]]]:
    """What differs by more than it may, by name: theirs and ours."""
    return {
        name: (values.tolist(), ours[name].tolist())
        for name, values in theirs.items()
        if not np.allclose(ours[name], values, rtol=REFERENCES[name].rtol, atol=1e-10)
    }


def by_name(values: Floats) -> dict[str, Floats]:
    return dict(zip(REFERENCES, values.T, strict=True))


def test_every_feature_has_a_reference() -> None:
    assert set(CATALOGUE) | set(JOINED) == {name for name, each in REFERENCES.items() if not each.text}


def test_features_equal_the_stored_values_of_every_reference() -> None:
    theirs = {name: np.array(each.theirs) for name, each in stored().items()}
    assert set(theirs) == set(REFERENCES), REMEDY
    assert differing(by_name(our_values(market(SEED))), theirs) == {}


@pytest.mark.parametrize(("seed", "begin"), [(1, SATURDAY), (SEED, FRIDAY)])
def test_features_equal_their_references(seed: int, begin: str) -> None:
    """All of a market at once: what differs is told by name. Numpy's twin stands in for what is not installed."""
    made = market(seed, begin, is_funding_told=begin == FRIDAY)
    ways = {name: each.value if is_here(each) else each.twin for name, each in REFERENCES.items()}
    markets = [bars(columns_to(made, row)) for row in ROWS]
    theirs = {name: np.array([way(b) for b in markets]) for name, way in ways.items() if way}
    assert differing(by_name(our_values(made)), theirs) == {}
    assert len(theirs) > 300


def test_twins_equal_the_stored_values() -> None:
    markets = [bars(columns_to(market(SEED), row)) for row in ROWS]
    twins = {name: np.array([each.twin(b) for b in markets]) for name, each in REFERENCES.items() if each.twin}
    assert differing({name: np.array(each.theirs) for name, each in stored().items()}, twins) == {}
    assert len(twins) > 15


def test_the_page_of_references_is_up_to_date() -> None:
    assert DOCS.read_text() == page(stored()), REMEDY
    kinds = {name: each.by.partition(":")[0] for name, each in stored().items()}
    assert kinds == {name: each.kind for name, each in REFERENCES.items()}, REMEDY
    assert set(kinds.values()) == {THIRD_PARTY, PAPER, DEFINITION}
    assert sum(kind == THIRD_PARTY for kind in kinds.values()) > 100


def test_what_is_stored_of_other_environments_was_given_by_the_pinned_versions() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", PINNED.read_text(), re.MULTILINE))
    given = {each.by.partition(": ")[2] for name, each in stored().items() if not is_here(REFERENCES[name])}
    assert given <= {f"{library} {version}" for library, version in pinned.items()}


def test_third_parties_that_are_not_installed_are_told() -> None:
    absent = [each for each in REFERENCES.values() if not is_here(each)]
    if absent:
        alone = sum(each.twin is None for each in absent)
        libraries = ", ".join(sorted({each.package for each in absent}))
        pytest.skip(
            f"{len(absent)} of {len(REFERENCES)} references by their stored values, {alone} of them without a twin in"
            f" numpy: {libraries} are not installed"
        )
