"""What is known of one feature, and all of them as text: a table that fits the screen, then what stands out."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.text_table import table_lines
from core.units import NS_PER_HOUR, seconds_label
from research.learning.inference import MIN_BLOCKS, block_s
from research.quality.feature_quality import SAME, Coefficient, Range

FALSE_DISCOVERIES: Final = 0.05
_MOVED: Final = 0.2  # of the PSI: see drift.py
_MOST_NAMED: Final = 8
_LEAST_WANTED: Final = ("p1", "p99", "median", "ns", "warm-up", "cover")


@dataclass(frozen=True)
class Assessment:
    """All that is known of one feature; `alike` are the others of its cluster.

    `psi` is None without a hold-out, `warmup_bars` where windows stand on bars that are not so many rows.
    """

    name: str
    coverage_frac: float | None
    warmup_bars: int | None
    range: Range | None
    psi: float | None
    cost_ns: float
    coefficients: tuple[Coefficient, ...]
    alike: tuple[str, ...]

    @property
    def best_z(self) -> float:
        return max((abs(each.z) for each in self.coefficients if each.z is not None), default=0.0)

    def row(self) -> dict[str, Any]:
        """As report.json has it."""
        return {
            "name": self.name,
            "coverage_frac": self.coverage_frac,
            "warmup_bars": self.warmup_bars,
            "range": self.range and self.range._asdict(),
            "psi": self.psi,
            "cost_ns": self.cost_ns,
            "ic": [each._asdict() for each in self.coefficients],
            "alike": self.alike,
        }


def table(found: Sequence[Assessment], width: int) -> list[str]:
    """A line per feature; what a narrow screen has no room for is in report.json."""
    horizons = [f"IC {seconds_label(each.horizon_s)}s" for each in found[0].coefficients]
    heads = ("feature", "cover", "warm-up", "ns", "PSI", "p1", "median", "p99", *horizons)
    # The star hangs over to the right, as a column of signs would.
    lines = table_lines(
        [*heads[:8], *(f"{head} " for head in horizons)], list(map(_cells, found)), width, 1, _LEAST_WANTED
    )
    return [line.rstrip() for line in lines]


def findings(found: Sequence[Assessment], calendar: frozenset[str], width: int) -> Iterator[str]:
    """What the table says: how many coefficients stand, what moved (the calendar aside), what says the same."""
    judged = [each for one in found for each in one.coefficients if each.q is not None]
    stars = sum(each.q is not None and each.q < FALSE_DISCOVERIES for each in judged)
    if judged:
        yield from textwrap.wrap(
            f"* {stars} of {len(judged)} coefficients stand at a false discovery rate of {FALSE_DISCOVERIES:.0%}: "
            "returns are predicted, which is not yet to pay their costs",
            width,
        )
    moved = sorted((one for one in found if (one.psi or 0.0) > _MOVED and one.name not in calendar), key=_by_psi)
    if moved:
        named = ", ".join(f"{one.name} {one.psi:.2f}" for one in moved[:_MOST_NAMED])
        more = f" and {len(moved) - _MOST_NAMED} more" if len(moved) > _MOST_NAMED else ""
        yield from textwrap.wrap(f"moved to the hold-out, PSI > {_MOVED}: {named}{more}", width, subsequent_indent="  ")
    for group in clusters_of(found):
        yield from textwrap.wrap(f"|rho| > {SAME}: {', '.join(group)}", width, subsequent_indent="  ")


def clusters_of(found: Sequence[Assessment]) -> list[tuple[str, ...]]:
    """The names that say the same, the largest group first."""
    groups = {tuple(sorted((one.name, *one.alike))) for one in found if one.alike}
    return sorted(groups, key=lambda group: (-len(group), group))


def too_short(found: Sequence[Assessment], span_ns: int) -> Iterator[str]:
    """For each horizon without a coefficient, what it takes: ten blocks of labels in the training stretch."""
    for of_horizon in zip(*(one.coefficients for one in found), strict=True):
        one, seconds = of_horizon[0], block_s(of_horizon[0].horizon_s)
        if all(each.ic is None for each in of_horizon):
            needed_h, held_h = MIN_BLOCKS * seconds / 3600.0, span_ns / NS_PER_HOUR
            yield (
                f"IC {seconds_label(one.horizon_s)}s: {one.n_blocks} blocks of {seconds / 60:g} min hold labels, "
                f"{MIN_BLOCKS} are needed: {needed_h:.1f} h of training stretch without gaps, {held_h:.1f} h are there"
            )


def _by_psi(one: Assessment) -> float:
    return -(one.psi or 0.0)


def _cells(one: Assessment) -> list[str]:
    spread = (one.range.p01, one.range.median, one.range.p99) if one.range else (None,) * 3
    return [
        one.name,
        "–" if one.coverage_frac is None else f"{one.coverage_frac:.0%}",
        "–" if one.warmup_bars is None else f"{one.warmup_bars:,}",
        f"{one.cost_ns:.0f}",
        "–" if one.psi is None else f"{one.psi:.2f}",
        *("–" if value is None else f"{value:.3g}" for value in spread),
        *map(_ic, one.coefficients),
    ]


def _ic(one: Coefficient) -> str:
    """The coefficient, with a star where it stands among all that were looked at."""
    if one.ic is None or one.q is None:
        return "– "
    return f"{one.ic:+.3f}{'*' if one.q < FALSE_DISCOVERIES else ' '}"
