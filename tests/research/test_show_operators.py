"""The stage `operators`: what its costs are measured on."""

import numpy as np

from research.language import compile_features
from research.quality.cost import MOST_OPERANDS, made_up_rows
from research.show_operators import with_buckets


def test_the_operator_on_volume_is_priced_with_buckets_as_long_as_those_of_its_feature() -> None:
    """A bar that closes a bucket costs ten times one that does not: the same share of bars must close one."""
    rows = with_buckets(made_up_rows(1, 20_000, [])[:, :MOST_OPERANDS])
    program = compile_features({"vpin": "(vpin_5 x0 x1 x2)"}, [f"x{k}" for k in range(MOST_OPERANDS)])
    vpin = program.evaluate(rows)[:, 0]
    known = vpin[np.isfinite(vpin)]
    assert 25.0 < known.size / np.count_nonzero(np.diff(known)) < 35.0
