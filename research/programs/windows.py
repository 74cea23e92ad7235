"""Windows: how many bars of a clock they hold, and which of them an operator takes."""

from core.errors import ConfigError
from core.units import parse_duration_ns
from research.bars.clocks import parse_clock
from research.programs.expression import Node
from research.programs.operators import MAX_WINDOW


def window_bars(window: str, bar: str) -> int:
    """Bars in a window such as `20` or `5s` on the clock `bar`. Raises ValueError where that is no whole number."""
    bars, rest = (int(window), 0) if window.isdigit() else divmod(parse_duration_ns(window), _step_ns(bar))
    if rest:
        raise ValueError(f"a window of {window} is not a whole number of bars of {bar.removeprefix('time_')}")
    if not 1 <= bars <= MAX_WINDOW:
        raise ValueError(f"a window holds 1 to {MAX_WINDOW} bars, {_was(window, bars)}: choose a shorter one")
    return bars


def require_window(call: Node, bar: str) -> None:
    """Raises ValueError for a call whose window the clock `bar` cannot count or its operator does not take."""
    if not call.window:
        return
    bars, operator = window_bars(call.window, bar), call.operator
    if bars < operator.least:
        raise ValueError(f"{operator.form} needs at least {operator.least} bars, {_was(call.window, bars)}")
    if bars > operator.most and operator.window == "n":
        raise ValueError(f"{operator.form} takes an n up to {operator.most}, was {bars}")
    if bars > operator.most:
        raise ValueError(
            f"{operator.form} takes at most {operator.most} bars, {_was(call.window, bars)}, as {operator.why_most}: "
            f"choose a shorter window, or longer bars, as in (at_1m ({call.head}_60 …))"
        )


def require_clock(bar: str) -> None:
    """Raises ValueError unless `bar` is a clock, `200ms` or `volume_10`, or empty: none is known."""
    if not isinstance(bar, str):
        raise ValueError(f"a clock is text, 200ms or volume_10, was {bar!r}")
    if not bar or is_time(bar):
        return
    try:
        parse_clock(bar)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("bars: ").removesuffix(" - at `$.bars`")) from None


def is_time(bar: str) -> bool:
    """Whether the bars of a clock are of time."""
    try:
        return parse_duration_ns(bar.removeprefix("time_")) > 0
    except ValueError:
        return False


def _was(window: str, bars: int) -> str:
    return f"was {bars}" if window.isdigit() else f"{window} is {bars}"


def _step_ns(bar: str) -> int:
    try:
        return parse_duration_ns(bar.removeprefix("time_"))
    except ValueError:
        clock = f"these are {bar}" if bar else "no clock was given"
        raise ValueError(f"a window of time needs bars of time, {clock}: count bars instead, as in mean_20") from None
