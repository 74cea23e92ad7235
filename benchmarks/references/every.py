"""All references by name, in the order of the table. A module of more of them is added here."""

from typing import Final

from benchmarks.references import book, default, derivatives, flow, fractal, joined, price
from benchmarks.references.windows import Reference

REFERENCES: Final[dict[str, Reference]] = {
    **default.REFERENCES,
    **book.REFERENCES,
    **flow.REFERENCES,
    **price.REFERENCES,
    **derivatives.REFERENCES,
    **fractal.REFERENCES,
    **joined.REFERENCES,
}
