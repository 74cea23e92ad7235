"""Does the rebuilt book agree with the best prices that the venue itself told on another stream?

Binance numbers both streams alike: they are compared at equal update ids. Bybit numbers each depth apart and stamps a
book with the time at which it made the message, on a timer of its own (100 ms at 200 levels), so that a best price of
the same millisecond may be of before or after it. There a book is compared with the best prices between two of which
it stands, where the venue told none from its millisecond until all that went before had been sent.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from core.schema import BOOK_DELTAS, TOP_OF_BOOK
from core.store import Partition, date_of_ns, read_between
from core.units import NS_PER_DAY, NS_PER_MS, NS_PER_S
from ingest.book_rebuild import COLUMNS, PRICES, Rebuilder, best_frame
from ingest.stored_books import gaps_between, holds_back, rebuilder_at

_NEAR_NS: Final = 30 * NS_PER_S  # a best price and the book that it is compared with come this near together
_PUSH_NS: Final = 10 * NS_PER_MS  # Bybit sends depth 1 as often as that: no change before is told later
_EQUAL: Final = pl.all_horizontal(pl.col(name) == pl.col(f"{name}_top") for name in PRICES)


class BookCheck:
    """Rebuilds a day's book, slice by slice, and compares it."""

    def __init__(self, root: Path, part: Partition) -> None:
        self._root, self._part = root, part
        self._book: Rebuilder = rebuilder_at(root, part, part.starts_ns)
        self._has_shared_ids = holds_back(part.exchange)
        gaps = gaps_between(root, part.instrument, part.starts_ns, part.starts_ns + NS_PER_DAY)
        self._breaks_ns = gaps.filter(pl.col("stream") == TOP_OF_BOOK.name)["to_ns"].to_list()
        self._compared = self._agreed = self._crossed = 0

    def add(self, rows: pl.DataFrame) -> None:
        """The next rows of the day, whole messages."""
        applied = self._book.follow(rows.select(COLUMNS))
        best = best_frame(applied, self._book.best_after(applied))
        self._crossed += int((best["bid_price"] >= best["ask_price"]).sum())
        compared, agreed = self._compare(best, int(rows["recv_ns"][0]), int(rows["recv_ns"][-1]))
        self._compared += compared
        self._agreed += agreed

    def _compare(self, best: pl.DataFrame, first_ns: int, last_ns: int) -> tuple[int, int]:
        from_ns, to_ns = first_ns - _NEAR_NS, last_ns + _NEAR_NS
        tops = self._between(TOP_OF_BOOK.name, ["recv_ns", "exch_ns", "update_id", *PRICES], from_ns, to_ns)
        if self._has_shared_ids:
            return agreement_by_id(best, tops)
        heard_ns = self._between(BOOK_DELTAS.name, ["recv_ns"], from_ns, to_ns)["recv_ns"]
        return agreement_in_time(best, tops, heard_ns, self._breaks_ns)

    def _between(self, table: str, columns: Sequence[str], from_ns: int, to_ns: int) -> pl.DataFrame:
        """What a stream of the symbol received in [from_ns, to_ns), across midnight too."""
        dates = sorted({date_of_ns(from_ns), date_of_ns(to_ns)})
        days = [replace(self._part, table=table, date=date) for date in dates]
        return pl.concat([read_between(self._root, day, columns, from_ns, to_ns) for day in days])

    def figures(self) -> dict[str, float | None]:
        """Crossed books, compared ones, and the share of these that agreed; None where none was compared."""
        return {
            "crossed_count": float(self._crossed),
            "compared_count": float(self._compared),
            "agreement_frac": self._agreed / self._compared if self._compared else None,
        }


def agreement_by_id(book: pl.DataFrame, tops: pl.DataFrame) -> tuple[int, int]:
    """(compared, equal) best prices of a rebuilt book and of a venue's own stream, joined on update_id.

    Both have update_id, recv_ns and PRICES. Prices that were taken from the book itself came with it, at its recv_ns,
    and prove nothing: they are left out.
    """
    last = book.drop_nulls(PRICES).unique("update_id", keep="last", maintain_order=True)
    tops = tops.unique("update_id", keep="last", maintain_order=True)
    both = last.join(tops, on="update_id", suffix="_top", validate="1:1")
    return _counted(both.filter(pl.col("recv_ns") != pl.col("recv_ns_top")))


def agreement_in_time(
    book: pl.DataFrame, tops: pl.DataFrame, heard_ns: pl.Series, breaks_ns: Sequence[int]
) -> tuple[int, int]:
    """The same of streams that share no ids, by exch_ns, which each has to the millisecond.

    A book is compared with the last best prices of an earlier millisecond, if the next follow more than _PUSH_NS after
    the book. `heard_ns` are the receive times of books, to know by what was taken from them; `breaks_ns` are the ends
    of gaps in the best prices: nothing is known to have stood across one.
    """
    told = tops.sort("exch_ns", maintain_order=True).unique("exch_ns", keep="last", maintain_order=True)
    told = told.with_columns(
        next_ns=pl.col("exch_ns").shift(-1),
        is_own=pl.col("recv_ns").is_in(heard_ns.implode()),
        stretch=np.searchsorted(np.sort(np.array(breaks_ns, np.int64)), told["recv_ns"].to_numpy(), "right"),
    ).with_columns(is_unbroken=pl.col("stretch") == pl.col("stretch").shift(-1))
    last = book.drop_nulls(PRICES).sort("exch_ns", maintain_order=True)
    last = last.unique("exch_ns", keep="last", maintain_order=True)
    both = last.join_asof(told, on="exch_ns", suffix="_top", allow_exact_matches=False, check_sortedness=False)
    is_plain = pl.col("is_unbroken") & ~pl.col("is_own") & (pl.col("next_ns") > pl.col("exch_ns") + _PUSH_NS)
    return _counted(both.filter(is_plain))


def _counted(both: pl.DataFrame) -> tuple[int, int]:
    return both.height, int(both.select(_EQUAL.sum()).item() or 0)
