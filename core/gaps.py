"""What the table `gaps` says in the end: a hole is written as it is met, and once more when it has been mended.

The second row has the stream, from_ns and to_ns of the first, and `mended`. It may come much later, or never, if the
capture was killed in between: then the hole stands.
"""

import polars as pl

_GAP = ("stream", "from_ns", "to_ns")


def settled(gaps: pl.DataFrame) -> pl.DataFrame:
    """Rows of one instrument's `gaps`, in their order, without those that a later row says are mended."""
    return gaps.filter(pl.col("mended") == pl.col("mended").any().over(_GAP))


def unmended(gaps: pl.DataFrame) -> pl.DataFrame:
    """The rows of one instrument's `gaps` that stay open: no row says that they are mended."""
    return gaps.filter(~pl.col("mended").any().over(_GAP))
