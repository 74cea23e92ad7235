"""The rebuilt book against best prices that a venue told on a stream of its own."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from core.cli import run_stages
from core.config import load
from core.schema import QUALITY
from core.store import partitions, read
from ingest import capture, quality
from ingest.book_agreement import agreement_by_id, agreement_in_time
from ingest.book_rebuild import PRICES

MS = 1_000_000


def prices(bids: Sequence[float | None]) -> dict[str, list[float | None]]:
    return {name: list(bids) if name == "bid_price" else [9.0] * len(bids) for name in PRICES}


def best(at_ms: Sequence[float], bids: Sequence[float | None], delay_ms: float = 5.0) -> pl.DataFrame:
    """Best prices of these milliseconds, each received `delay_ms` later."""
    exch_ns = [round(each * MS) for each in at_ms]
    return pl.DataFrame({"exch_ns": exch_ns, "recv_ns": [ns + round(delay_ms * MS) for ns in exch_ns]} | prices(bids))


def compared(book: pl.DataFrame, tops: pl.DataFrame, breaks_ms: Sequence[float] = ()) -> tuple[int, int]:
    return agreement_in_time(book, tops, book["recv_ns"], [round(each * MS) for each in breaks_ms])


def test_equal_ids_are_compared_but_not_what_came_of_the_book_itself() -> None:
    book = pl.DataFrame({"update_id": [1, 2, 3, 4], "recv_ns": [10, 20, 30, 40]} | prices([1.0, 1.0, None, 1.0]))
    tops = pl.DataFrame(
        {"update_id": [1, 2, 3, 4, 5], "recv_ns": [11, 21, 31, 40, 50]} | prices([1.0, 1.5, 1.0, 1.0, 1.0])
    )
    assert agreement_by_id(book, tops) == (2, 1)


def test_a_book_made_on_a_timer_is_compared_with_the_prices_that_stood_then() -> None:
    """At 200 ms the best prices change within the book's millisecond, after it: which came first is not told."""
    tops = best([60, 150, 200, 260, 330], [1.0, 2.0, 3.0, 4.0, 5.0], delay_ms=7.0)
    assert compared(best([100, 200, 300], [1.0, 2.0, 4.0]), tops) == (2, 2)
    assert compared(best([100, 200, 300], [1.0, 2.0, 4.5]), tops) == (2, 1)


def test_best_prices_that_may_tell_of_an_earlier_change_are_not_held_against_the_book() -> None:
    """Depth 1 is sent every 10 ms: what changed at 99 ms may be told with the time 105 ms."""
    assert compared(best([100], [2.0]), best([50, 105, 150], [1.0, 2.0, 3.0], 7.0)) == (0, 0)


def test_nothing_stands_across_a_gap_or_beyond_what_was_received() -> None:
    tops = best([50, 150], [1.0, 1.5], delay_ms=7.0)
    assert compared(best([100, 200], [1.0, 1.0]), tops) == (1, 1)
    assert compared(best([100, 200], [1.0, 1.0]), tops, breaks_ms=[157]) == (0, 0)


def test_prices_taken_from_the_book_prove_nothing_also_of_later_books() -> None:
    book = best([100, 200, 300], [1.0, 1.0, 3.0])
    tops = pl.concat([best([100], [1.0]), best([250, 400], [3.0, 4.0], delay_ms=7.0)])
    assert compared(book, tops) == (1, 1)
    assert compared(best([90], [1.0]), tops) == (0, 0)


def test_every_book_of_a_simulated_market_agrees_on_both_venues(tmp_path: Path) -> None:
    pairs = ["profile=smoke", "sim.transport=direct", "sim.hours=0.1"]
    config = load(pairs=pairs, options={"data_dir": str(tmp_path)})
    run_stages(config, {"capture": capture.run, "quality": quality.run})
    days = {part.instrument: read(tmp_path, part) for part in partitions(tmp_path, QUALITY)}
    books = {
        name: frame.row(by_predicate=pl.col("stream") == "book_deltas", named=True) for name, frame in days.items()
    }
    assert {name.partition(":")[0] for name in books} == {"binance_um", "bybit"}
    assert all(row["compared_count"] > 400 and row["agreement_frac"] == 1.0 for row in books.values())
