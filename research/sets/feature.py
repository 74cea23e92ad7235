"""One line of the catalogue, and what the page of the language says about it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """`text` in the language; `unit`; what the figure `says`; the `source` of its definition, where it has one."""

    text: str
    unit: str
    says: str
    source: str = ""
