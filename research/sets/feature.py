"""One line of the catalogue, what the page of the language says about it, and what it is where it is not known."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """`text` in the language; `unit`; what the figure `says`; the `source` of its definition, where it has one."""

    text: str
    unit: str
    says: str
    source: str = ""


def or_zero(text: str, filled: str = "") -> str:
    """`text`, and 0 where it is not known though its windows are full, which takes `filled` at most.

    What is not published must stay NaN inside windows, which 0 would fill with a value that never was; and outside of
    them a window that is not full yet must not pass for one that is.
    """
    return f"(coalesce {text} {f'(lag_{filled} 0)' if filled else 0})"
