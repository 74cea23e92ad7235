"""What the table `gaps` says in the end: a hole is written as it is met, and once more when it has been mended.

The second row has the stream, from_ns and to_ns of the first, and `mended`. It may come much later, or never, if the
capture was killed in between: then the hole stands. A capture that goes on after it tells, from the same trade on, a
hole that reaches further; when that is mended, so is the one before.

All rows of a gap have the `told_ns` at which it was told first: what someone who acts at once knew of it, and when.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import polars as pl

from core.schema import GAPS, TRADES

UNDECODED: Final = "frame did not decode"
"""How the reason begins of a gap that says no more than that a frame was lost: what ids tell has rows of its own."""
DROPPED: Final = "rows dropped"
NOT_ARCHIVED: Final = "are not in the archive"
UNDECIDED: Final = "days cut by different clocks meet here: trades may be lost or twice"
"""What the reasons of gaps in archives say: nothing was live there, and nothing is fetched."""
_OF_FRAME: Final = pl.col("reason").str.starts_with(UNDECODED)
_GAP: Final = (pl.col("stream"), pl.col("from_ns"), pl.col("to_ns"), _OF_FRAME)
Row: TypeAlias = tuple[str, int, int, str, bool]
"""stream, from_ns, to_ns, reason, mended."""


def told_at_their_ends(rows: Sequence[Row]) -> pl.DataFrame:
    """Rows of the table `gaps`, in their order, of gaps that were known as soon as they ended."""
    schema = {name: dtype for name, dtype in GAPS.columns.items() if name != "told_ns"}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(told_ns="to_ns")


def of_archives() -> pl.Expr:
    """Whether a row of `gaps` is of an archive."""
    return pl.col("reason").str.contains_any([NOT_ARCHIVED, UNDECIDED])


def settled(gaps: pl.DataFrame) -> pl.DataFrame:
    """Rows of one instrument's `gaps`, in their order, without those that another row says are mended."""
    return gaps.filter(pl.col("mended") | ~_is_closed())


def unmended(gaps: pl.DataFrame) -> pl.DataFrame:
    """The rows of one instrument's `gaps` that stay open: no row says that they are mended."""
    return gaps.filter(~_is_closed())


def _is_closed() -> pl.Expr:
    """Whether a row, or another of the same gap, says mended; or one that says so of more trades after the same one.

    Of stamps that are equal nothing is known: what ends when it begins is closed by its like alone.
    """
    is_fetched = pl.col("mended") & ~_OF_FRAME & (pl.col("stream") == TRADES.name)
    reach_ns = pl.when(is_fetched).then("to_ns").max().over("stream", "from_ns")
    of_ids = (pl.col("from_ns") < pl.col("to_ns")) & ~_OF_FRAME & ~pl.col("reason").str.contains(DROPPED, literal=True)
    return pl.col("mended").any().over(*_GAP) | (of_ids & (pl.col("to_ns") < reach_ns).fill_null(False))
