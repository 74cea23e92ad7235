"""Trades and book changes as hftbacktest's event arrays (version 2): `npz` files with one structured array, `data`.

Each event carries both clocks and the flags of who sees it: the simulated exchange in order of `exch_ts`, the strategy
in order of `local_ts`. Where the two orders differ an event stands twice, once for each. The layout and the flags are
those of hftbacktest.types, https://hftbacktest.readthedocs.io/en/latest/data.html, read in version 2.4.4.
"""

import os
import zipfile
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.kernels import njit
from ingest.book_rebuild import Applied, Ladders

Ints: TypeAlias = NDArray[np.int64]
EVENT: Final = np.dtype(
    [
        ("ev", "u8"), ("exch_ts", "i8"), ("local_ts", "i8"), ("px", "f8"), ("qty", "f8"),
        ("order_id", "u8"), ("ival", "i8"), ("fval", "f8"),
    ],
    align=True,
)  # fmt: skip
DEPTH, TRADE, CLEAR, SNAPSHOT = 1, 2, 3, 4
BUY, SELL = 1 << 29, 1 << 28
FOR_LOCAL, FOR_EXCHANGE = 1 << 30, 1 << 31
_CHUNK: Final = 1 << 20
_COMPRESSION_LEVEL: Final = 1  # 9 takes five times as long for a tenth less


class Events(NamedTuple):
    """Columns of events that both clocks have yet to order. `kind` is the event's number and its side."""

    kind: Ints
    exch_ns: Ints
    local_ns: Ints
    price: NDArray[np.float64]
    qty: NDArray[np.float64]


def trade_events(trades: pl.DataFrame) -> Events:
    """Rows of `trades`, the side being the aggressor's."""
    side = np.where((trades["taker_side"] == "buy").to_numpy(), BUY, SELL)
    times = trades["exch_ns"].to_numpy(), trades["recv_ns"].to_numpy()
    return Events(TRADE | side, *times, trades["price"].to_numpy(), trades["qty"].to_numpy())


def book_events(applied: Applied) -> Events:
    """A slice of a rebuilt book: a snapshot clears the book, and within a message levels go before others come.

    A change that was held back for a snapshot reaches the strategy with it. While the book is not known, nothing is
    told: the strategy sees the last book until the snapshot that ends a gap.
    """
    messages, message = applied.messages, applied.message
    first_rows = messages.starts[message]
    lengths = messages.starts[message + 1] - first_rows
    steps = np.repeat(np.arange(message.size), lengths)
    rows = np.arange(lengths.sum()) + np.repeat(first_rows - np.cumsum(lengths) + lengths, lengths)
    whole = messages.is_snapshot[message]
    kinds = np.where(whole[steps], SNAPSHOT, DEPTH) | np.where(messages.is_bid[rows], BUY, SELL)
    clears = np.flatnonzero(whole)
    step = np.concatenate([clears, steps])
    rank = np.concatenate([np.zeros(clears.size, np.int64), 1 + (messages.qty[rows] > 0.0)])
    order = np.lexsort((rank, step))
    nothing = np.zeros(clears.size)
    return Events(
        np.concatenate([np.full(clears.size, CLEAR), kinds])[order],
        messages.exch_ns[message][step[order]],
        messages.recv_ns[applied.at][step[order]],
        np.concatenate([nothing, messages.price[rows]])[order],
        np.concatenate([nothing, messages.qty[rows]])[order],
    )


def standing_book(ladders: Ladders, exch_ns: int, local_ns: int) -> Events:
    """A whole book as a snapshot."""
    parts = [(side, *ladders.side(is_bid)) for side, is_bid in ((BUY, True), (SELL, False))]
    kinds = [np.full(prices.size, SNAPSHOT | side, np.int64) for side, prices, _ in parts]
    price = np.concatenate([prices for _, prices, _ in parts])
    qty = np.concatenate([quantities for _, _, quantities in parts])
    size = price.size
    return Events(np.concatenate(kinds), np.full(size, exch_ns), np.full(size, local_ns), price, qty)


def top_events(tops: pl.DataFrame, resumes_ns: Ints) -> Events:
    """Rows of `top_of_book` as a book of one level per side: the old best goes, the new one comes.

    The first row, and the first at or after each of `resumes_ns` (ends of gaps, sorted), begins with a cleared book.
    """
    recv_ns = tops["recv_ns"].to_numpy()
    fresh = np.zeros(recv_ns.size + 1, np.bool_)
    fresh[np.searchsorted(recv_ns, np.append(resumes_ns, recv_ns[:1]))] = True
    fresh = fresh[:-1]
    columns: list[tuple[int, Ints, Ints, NDArray[np.float64], NDArray[np.float64]]] = []
    places = np.flatnonzero(fresh)
    columns.append((0, places, np.full(places.size, CLEAR), np.zeros(places.size), np.zeros(places.size)))
    for side, name in ((BUY, "bid"), (SELL, "ask")):
        price, qty = tops[f"{name}_price"].to_numpy(), tops[f"{name}_qty"].to_numpy()
        moved = np.zeros(price.size, np.bool_)
        moved[1:] = price[1:] != price[:-1]
        gone = np.flatnonzero(moved & ~fresh)
        changed = moved | fresh
        changed[1:] |= qty[1:] != qty[:-1]
        come = np.flatnonzero(changed)
        kinds = np.where(fresh[come], SNAPSHOT, DEPTH) | side
        columns.append((1, gone, np.full(gone.size, DEPTH | side), price[gone - 1], np.zeros(gone.size)))
        columns.append((2, come, kinds, price[come], qty[come]))
    rank = np.concatenate([np.full(places.size, number) for number, places, *_ in columns])
    place, kind, prices, qtys = (np.concatenate([column[at] for column in columns]) for at in (1, 2, 3, 4))
    order = np.lexsort((rank, place))
    row = place[order]
    exch_ns = tops["exch_ns"].to_numpy()
    return Events(kind[order], exch_ns[row], recv_ns[row], prices[order], qtys[order])


def together(parts: list[Events]) -> Events:
    """Events one after the other, as they stand at equal times: trades go before the changes that they caused."""
    return Events(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def ordered(events: Events) -> tuple[Ints, Ints]:
    """(event, flags) for each row of the array."""
    by_exchange = np.argsort(events.exch_ns, kind="stable")
    by_local = np.argsort(events.local_ns, kind="stable")
    which, flags = np.zeros(2 * by_local.size, np.int64), np.zeros(2 * by_local.size, np.int64)
    size = _interleave(events.exch_ns, by_exchange, by_local, which, flags)
    return which[:size], flags[:size]


@njit(cache=True, nogil=True)
def _interleave(exch_ns: Ints, by_exchange: Ints, by_local: Ints, which: Ints, flags: Ints) -> int:
    """Merge two orders of the same events: one that is next in both is written once, for both. Returns the rows."""
    size, e, l = 0, 0, 0  # noqa: E741
    while e < by_exchange.size or l < by_local.size:
        has_both = e < by_exchange.size and l < by_local.size
        if has_both and by_exchange[e] == by_local[l]:
            which[size], flags[size] = by_local[l], FOR_LOCAL | FOR_EXCHANGE
            e, l = e + 1, l + 1  # noqa: E741
        elif l == by_local.size or (has_both and exch_ns[by_exchange[e]] < exch_ns[by_local[l]]):
            which[size], flags[size] = by_exchange[e], FOR_EXCHANGE
            e += 1
        else:
            which[size], flags[size] = by_local[l], FOR_LOCAL
            l += 1  # noqa: E741
        size += 1
    return size


def write_npz(path: Path, events: Events, shift_ns: int) -> int:
    """Write an event array, a million events at a time, atomically. Returns its number of rows."""
    which, flags = ordered(events)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    with (
        zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL) as archive,
        archive.open("data.npy", "w", force_zip64=True) as file,
    ):
        _write_array(file, events, which, flags, shift_ns)
    os.replace(draft, path)
    return int(which.size)


def _write_array(file: IO[bytes], events: Events, which: Ints, flags: Ints, shift_ns: int) -> None:
    head: dict[str, Any] = {"descr": np.lib.format.dtype_to_descr(EVENT), "fortran_order": False}
    np.lib.format.write_array_header_1_0(file, head | {"shape": (which.size,)})
    for start in range(0, which.size, _CHUNK):
        chosen = which[start : start + _CHUNK]
        rows = np.zeros(chosen.size, EVENT)
        rows["ev"] = events.kind[chosen] | flags[start : start + _CHUNK]
        rows["exch_ts"], rows["local_ts"] = events.exch_ns[chosen], events.local_ns[chosen] + shift_ns
        rows["px"], rows["qty"] = events.price[chosen], events.qty[chosen]
        file.write(rows.tobytes())
