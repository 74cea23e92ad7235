"""Joins: forms of the language whose operand is computed on other bars than those of the row, which get its value.

  (at_1m x)        x on the symbol's own bars of another clock: at_5s, at_1h, at_volume_100, at_dollar_1000000, …
  (of_ETHUSDT x)   x on another symbol's bars of the same clock and venue; of_bybit:ETHUSDT names the venue
  (cs_rank x)      where x stands among the symbols of the run whose bars closed at the same instant; on time bars only
  (signal_oi x)    x over the values of a slow series (the table `signals`), each a row of its own: signal_columns.py

A row takes the value at the last bar that closed at or before its own close, one that closes at the same instant
included, and never a bar that is still open. A value on time bars holds until the next of these is due: where that is
missing (silence) it is not known. Windows inside count bars of the clock on which they stand. Joins nest:
`(at_1m (of_ETHUSDT x))` is x on the other symbol's minute bars. A signal stands on no bars: its operand reads the
series alone, and windows inside count values.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from core.errors import ConfigError
from core.units import parse_duration_ns
from research.bars.clocks import parse_clock

Form = Literal["at", "of", "signal", "cs_rank", "cs_mean", "cs_zscore"]
CROSS_SECTIONS: Final[dict[str, str]] = {
    "cs_rank": "share of the other symbols below this one, equal ones half; 0.5 where it is alone",
    "cs_mean": "mean over the symbols",
    "cs_zscore": "(x - mean) / deviation over the symbols, divided by their number; 0 where all are equal",
}
"""Forms that compare the symbols of a run at one instant, by name. Symbols whose x is not known do not count."""

SIGNAL_COLUMNS: Final = ("value", "time_s")
"""What stands inside a signal: its value, and what the value is of, in seconds since 1970."""
_SIGNAL: Final = re.compile(r"signal_([a-z0-9_]+)", re.ASCII)
_UNITS: Final = {"msec": "ms", "milli": "ms", "sec": "s", "min": "m", "hour": "h", "hr": "h", "day": "d"}
_LONG_UNIT: Final = re.compile(rf"(\d+)_?({'|'.join(_UNITS)})[a-z]*", re.ASCII)
_SYMBOL: Final = re.compile(r"of_(?:[a-z_]+:)?[A-Za-z0-9][\w.\-]*", re.ASCII)


@dataclass(frozen=True)
class Join:
    """One join. `place` is the name of a clock (at), `SYMBOL` or `venue:SYMBOL` (of), a series (signal), or empty."""

    form: Form
    place: str = ""

    @property
    def is_cross_section(self) -> bool:
        return self.form in CROSS_SECTIONS

    @property
    def is_signal(self) -> bool:
        return self.form == "signal"

    def clock(self, around: str) -> str:
        """The clock that the operand runs on, where the join itself stands on the clock `around`."""
        return self.place if self.form == "at" else around

    def target(self, viewer: str) -> str:
        """The instrument (`venue:SYMBOL`) whose bars the operand runs on, as seen from `viewer`."""
        if self.form != "of":
            return viewer
        return self.place if ":" in self.place else f"{viewer.partition(':')[0]}:{self.place}"


@lru_cache(maxsize=4096)
def parse_join(word: str) -> Join | None:
    """The join that a word at the head of a call names; None where it has the form of none.

    Raises ValueError where it begins like one and is not.
    """
    if word in CROSS_SECTIONS:
        return Join(word)  # type: ignore[arg-type]  # the keys are the forms
    if word.startswith("at_"):
        return Join("at", _clock_name(word))
    if word.startswith("of_"):
        if not _SYMBOL.fullmatch(word):
            raise ValueError(f"{word}: of_ takes a symbol, as in of_ETHUSDT or of_bybit:ETHUSDT")
        return Join("of", word.removeprefix("of_"))
    if word.startswith("signal_"):
        name = signal_name(word)
        if name is None:
            raise ValueError(f"{word}: signal_ takes the name of a series, as in signal_ls_ratio_global")
        return Join("signal", name)
    if word.startswith("cs_"):
        raise ValueError(f"{word}: the cross-sections are {', '.join(CROSS_SECTIONS)}")
    return None


def signal_name(word: str) -> str | None:
    """`oi` of `signal_oi`: the series that a word stands for, None for any other word."""
    match = _SIGNAL.fullmatch(word)
    return match[1] if match else None


def _clock_name(word: str) -> str:
    """`time_1m` of `at_1m`, `volume_100` of `at_volume_100`."""
    name = word.removeprefix("at_")
    try:
        return parse_clock(f"time_{name}" if _is_duration(name) else name).name
    except ConfigError as error:
        if meant := _LONG_UNIT.fullmatch(name):
            hint = f"did you mean at_{meant[1]}{_UNITS[meant[2]]}?"
            raise ValueError(f"{word}: at_ takes a clock of bars, as in at_1m or at_volume_100, {hint}") from None
        why = str(error).removeprefix("bars: ").removesuffix(" - at `$.bars`")
        raise ValueError(f"{word}: at_ takes a clock of bars, as in at_1m or at_volume_100: {why}") from None


def _is_duration(text: str) -> bool:
    try:
        return parse_duration_ns(text) > 0
    except ValueError:
        return False
