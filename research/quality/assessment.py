"""What is known of one feature, and all of them as text: a table that fits the screen, then what stands out."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.text_table import blocks, table_lines
from core.units import NS_PER_HOUR, seconds_label
from research.learning.inference import MIN_BLOCKS, block_s
from research.quality.drift import MOVED
from research.quality.feature_quality import SAME, Coefficient, Range

FALSE_DISCOVERIES: Final = 0.05
_MOST_NAMED: Final = 8
_LEAST_WANTED: Final = ("p1", "p99", "median")


@dataclass(frozen=True)
class Assessment:
    """All that is known of one feature.

    `psi` is from the training stretch to the hold-out, `psi_live` to the last live session: None without one; the
    calendar's `must_move`. `warmup_bars` is None where windows stand on bars that are not so many rows.
    """

    name: str
    coverage_frac: float | None
    warmup_bars: int | None
    range: Range | None
    psi: float | None
    psi_live: float | None
    must_move: bool
    cost_ns: float
    coefficients: tuple[Coefficient, ...]

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
            "psi_live": self.psi_live,
            "must_move": self.must_move,
            "cost_ns": self.cost_ns,
            "z": self.best_z if any(each.z is not None for each in self.coefficients) else None,
            "ic": [each._asdict() for each in self.coefficients],
        }


def table(found: Sequence[Assessment], width: int) -> list[str]:
    """A line per feature. Where a screen is too narrow the coefficients have a table of their own, and what there is no
    room for beside the rest is in report.json alone."""
    with_live = any(one.psi_live is not None for one in found)
    horizons = [seconds_label(each.horizon_s) for each in found[0].coefficients]
    heads = ["|z|", f"IC {horizons[0]}s", *(f"{horizon}s" for horizon in horizons[1:])]
    rest = ["PSI", *(["live"] if with_live else []), "cover", "warm-up", "ns", "p1", "median", "p99"]
    rows = [(one.name, [_z(one), *map(_ic, one.coefficients)], _rest(one, with_live)) for one in found]
    whole = blocks(["feature", *heads, *rest], [[name, *ics, *others] for name, ics, others in rows], width)
    if len(whole) == 1:
        return whole[0]
    coefficients = table_lines(["feature", *heads], [[name, *ics] for name, ics, _ in rows], width)
    others = table_lines(["feature", *rest], [[name, *cells] for name, _, cells in rows], width, 1, _LEAST_WANTED)
    return [*coefficients, "", *others]


def findings(found: Sequence[Assessment], clusters: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """What the table says: how many coefficients stand, what moved (the calendar aside), what says the same."""
    judged = [each for one in found for each in one.coefficients if each.q is not None]
    stars = sum(each.q is not None and each.q < FALSE_DISCOVERIES for each in judged)
    if judged:
        yield f"* {stars} of {len(judged)} coefficients stand at a false discovery rate of {FALSE_DISCOVERIES:.0%}"
        yield "  to predict a return is not yet to pay its costs"
    for where, psi in (("to the hold-out", _psi), ("to the live session", _psi_live)):
        yield from textwrap.wrap(moved_line(found, where, psi), width, subsequent_indent="  ")
    if clusters:
        yield f"say the same, |rho| > {SAME} between any two of a line:"
    for group in clusters:
        yield from textwrap.wrap(", ".join(group), width, initial_indent="  ", subsequent_indent="    ")


def moved_line(found: Sequence[Assessment], where: str, psi: Callable[[Assessment], float]) -> str:
    """Which features moved, those first that moved most; empty where none did."""
    moved = sorted((one for one in found if psi(one) > MOVED and not one.must_move), key=lambda one: -psi(one))
    if not moved:
        return ""
    named = ", ".join(f"{one.name} {psi(one):.2f}" for one in moved[:_MOST_NAMED])
    more = f" and {len(moved) - _MOST_NAMED} more" if len(moved) > _MOST_NAMED else ""
    return f"moved {where}, PSI > {MOVED}, the calendar aside: {named}{more}"


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


def _psi(one: Assessment) -> float:
    return one.psi or 0.0


def _psi_live(one: Assessment) -> float:
    return one.psi_live or 0.0


def _rest(one: Assessment, with_live: bool) -> list[str]:
    """The cells beside the coefficients."""
    spread = (one.range.p01, one.range.median, one.range.p99) if one.range else (None,) * 3
    return [
        *("–" if psi is None else f"{psi:.2f}" for psi in ((one.psi, one.psi_live) if with_live else (one.psi,))),
        "–" if one.coverage_frac is None else f"{one.coverage_frac:.0%}",
        "–" if one.warmup_bars is None else f"{one.warmup_bars:,}",
        f"{one.cost_ns:.0f}",
        *("–" if value is None else f"{value:.3g}" for value in spread),
    ]


def _z(one: Assessment) -> str:
    """By which the table is sorted."""
    return f"{one.best_z:.1f}" if any(each.z is not None for each in one.coefficients) else "–"


def _ic(one: Coefficient) -> str:
    """The coefficient, `+.075`, with a star where it stands among all that were looked at, and room for one if not."""
    if one.ic is None or one.q is None:
        return "– "
    return f"{one.ic:+.3f}".replace("0.", ".", 1) + ("*" if one.q < FALSE_DISCOVERIES else " ")
