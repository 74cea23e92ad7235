"""Several programs over one pass: what their expressions have in common is computed once.

  merged = merge([one, another])        # some hundred candidates of a search, say
  y_one, y_another = merged.evaluate(x)

The merged program is a Program like any other: it streams, saves and restores, and a part of it goes on from its state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from research.language import compile_features
from research.programs.program import Floats, Ints, Program, clock_of
from research.programs.rows import Rows


@dataclass(frozen=True)
class Merged:
    """One program with the features of several, in order; `ends` (programs,) tells where those of each end."""

    program: Program
    ends: tuple[int, ...]

    def evaluate(self, x: Rows, bar_index: Ints | None = None, take: Ints | None = None) -> list[Floats]:
        """Each program's features as its own `evaluate` gives them, to the bit: views of one array."""
        return self.split(self.program.evaluate(x, bar_index, take))

    def split(self, y: Floats) -> list[Floats]:
        """The columns of y (n, features) by program."""
        return [y[:, begin:end] for begin, end in zip((0, *self.ends), self.ends, strict=False)]


def merge(programs: Sequence[Program]) -> Merged:
    """Programs of the same columns and bars as one. Raises ValueError for others, and for none."""
    if len({(program.columns, clock_of(program.bar)) for program in programs}) != 1:
        clocks = sorted({program.bar for program in programs})
        raise ValueError(f"merges programs of the same columns and bars, had {len(programs)} on {clocks}")
    trees = {
        f"{k} {name}": tree
        for k, program in enumerate(programs)
        for name, tree in zip(program.names, program.trees, strict=True)
    }
    program = compile_features(trees, programs[0].columns, programs[0].bar)
    return Merged(program, tuple(accumulate(len(each.names) for each in programs)))


def evaluate_programs(
    programs: Sequence[Program], x: Rows, bar_index: Ints | None = None, take: Ints | None = None
) -> list[Floats]:
    """`evaluate` of each program, in one pass over the rows with shared sub-expressions computed once."""
    return merge(programs).evaluate(x, bar_index, take)
