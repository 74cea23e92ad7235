"""Runs of Binance frames straight to rows, an order of magnitude faster than event by event.

Whoever has many frames at once, as of a recording (ingest/recordings.py), needs no structs of them: `FrameRuns` scans
what is as always into columns (ingest/frame_scan.py), and leaves the rest to the ordinary decoder, whose state it
shares. Both give the same rows, where each table of a symbol has one stream, as plans ask for; a spot quote's assumed
time alone is that of the run's begin, for which spot is not read so.

A live capture does not: a read of its socket brings few frames of each stream, and a run of ten frames takes longer
than ten frames do one by one. At 10,000 frames a second decoding and packing are 3 % of a core there; only where frames
come as fast as they can be read, which no venue sends, are they half of all (2026-11-21, benchmarks/bench_capture.py).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from core.plain_rows import Cells, PlainRows, plain_rows
from core.schema import BOOK_DELTAS, TOP_OF_BOOK, TRADES, Table
from ingest.binance import ENVELOPE, BinanceDecoder
from ingest.frame_gaps import stream_name
from ingest.frame_scan import DEPTH, KINDS, QUOTE, STATE_SIZE, TRADE, Found, Streams, room_for, scan
from ingest.frame_text import Ints, hash_name

_TABLES: Final = {QUOTE: TOP_OF_BOOK, TRADE: TRADES, DEPTH: BOOK_DELTAS}
_KIND_OF: Final = {"bookTicker": QUOTE, "aggTrade": TRADE, "depth": DEPTH}
_UNIVERSE: Final = {"binance": 0, "binance_um": 1, "binance_cm": 2}
_LONGEST_SYMBOL: Final = 40
_AT_ONCE: Final = 32

TakeRows: TypeAlias = Callable[[str, PlainRows], None]
"""Takes (symbol, rows) of one table, in order of receipt."""
TakeOne: TypeAlias = Callable[[int], bool]
"""Has the decoder decode the frame at a place of the run, and tells whether it did."""


class _Stream(NamedTuple):
    name: bytes
    kind: int
    symbol: str


class FrameRuns:
    """Decodes the runs of a decoder's connections. Frames may be given to the decoder itself in between."""

    def __init__(self, decoder: BinanceDecoder) -> None:
        self._decoder = decoder
        self._known: dict[bytes, _Stream] = {}
        self._listed: list[_Stream] = []
        self._streams = self._table()
        self._signs = 0
        self._room = room_for(0, 0)

    def decode(self, frames: Sequence[bytes], recv_ns: Sequence[int], take_rows: TakeRows, take_one: TakeOne) -> None:
        """Pass on the rows of frames in the order of their receipt, and the places of those that are left, in order.

        What is passed on of a stream is in order of receipt. A few of the frames that are left by a scan are decoded,
        and the rest is scanned once more: one that came twice holds up its stream no longer then, and a new stream is
        known.
        """
        places: Sequence[int] = range(len(frames))
        while places:
            left = self._scan([frames[place] for place in places], [recv_ns[place] for place in places], take_rows)
            for place in left[:_AT_ONCE]:
                if take_one(places[place]):
                    self._meet(frames[places[place]])
            places = [places[place] for place in left[_AT_ONCE:]]

    def _scan(self, frames: Sequence[bytes], recv_ns: Sequence[int], take_rows: TakeRows) -> list[int]:
        """Pass on the rows of what is as always. Returns the places of the others."""
        data = np.frombuffer(b"".join(frames), np.uint8)
        starts = np.zeros(len(frames) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, frames), np.int64, len(frames)), out=starts[1:])
        found = self._make_room(len(frames), data.size)
        self._look_up()
        scan(data, starts, np.fromiter(recv_ns, np.int64, len(frames)), self._streams, found)
        for each in (self._quotes(found), self._trades(found), self._changes(found)):
            for symbol, rows in each:
                take_rows(symbol, rows)
        self._move_on()  # after the rows were made: spot quotes take the clock of the run's begin
        left: list[int] = found.left[: found.counts[KINDS]].tolist()
        return left

    def _make_room(self, frames: int, signs: int) -> Found:
        if frames > self._room.left.size or signs > self._signs:
            self._signs = 2 * signs
            self._room = room_for(2 * frames, self._signs)
        self._room.counts[:] = 0
        return self._room

    def _meet(self, frame: bytes) -> None:
        """Note the stream of a frame that decoded: the next run may know it."""
        name = stream_name(frame, ENVELOPE)
        symbol, _, rest = name.partition("@")
        kind = _KIND_OF.get(rest.partition("@")[0])
        encoded = name.encode()
        if kind is None or encoded in self._known or not symbol.isascii() or len(symbol) > _LONGEST_SYMBOL:
            return
        self._known[encoded] = _Stream(encoded, kind, symbol.upper())
        self._listed.append(self._known[encoded])
        self._streams = self._table()

    def _table(self) -> Streams:
        """All streams that were met, to be found by the hash of their names."""
        count = len(self._listed)
        size = 1 << max(4, (4 * count).bit_length())
        slots, hashes = np.full(size, -1, np.int64), np.zeros(count, np.uint64)
        symbols = np.zeros((count, _LONGEST_SYMBOL + 2), np.uint8)
        for place, stream in enumerate(self._listed):
            hashes[place] = hash_name(np.frombuffer(stream.name, np.uint8), 0, len(stream.name))[0]
            slot = int(hashes[place]) % size
            while slots[slot] >= 0:
                slot = (slot + 1) % size
            slots[slot] = place
            quoted = f'"{stream.symbol}"'.encode()
            symbols[place, : len(quoted)] = np.frombuffer(quoted, np.uint8)
        return Streams(
            slots,
            hashes,
            np.array([stream.kind for stream in self._listed], np.int64),
            symbols,
            np.array([len(stream.symbol) + 2 for stream in self._listed], np.int64),
            np.zeros((count, STATE_SIZE), np.int64),
            np.zeros(count, np.bool_),
            np.zeros(count, np.bool_),
            np.array([self._decoder.venue != "binance", _UNIVERSE[self._decoder.venue]], np.int64),
        )

    def _look_up(self) -> None:
        """Where each stream stands, according to the decoder."""
        self._streams.moved[:] = False
        streams = self._decoder.streams
        for place, stream in enumerate(self._listed):
            state = streams.stand(_TABLES[stream.kind].name, stream.symbol, stream.name.decode())
            self._streams.usable[place] = state is not None
            if state is not None:
                self._streams.state[place] = state

    def _move_on(self) -> None:
        """Tell the decoder how far the streams came."""
        for place in np.flatnonzero(self._streams.moved).tolist():
            stream = self._listed[place]
            last_id, exch_ns, recv_ns, _ = self._streams.state[place].tolist()
            self._decoder.streams.follow(_TABLES[stream.kind].name, stream.symbol, last_id, exch_ns, recv_ns)

    def _parts(self, streams: Ints) -> Iterator[tuple[str, Any]]:
        """(symbol, its rows) of a column of streams: a slice where there is but one."""
        if not streams.size:
            return
        if (streams == streams[0]).all():
            yield self._listed[int(streams[0])].symbol, slice(0, streams.size)
            return
        by_stream = np.argsort(streams, kind="stable")
        for rows in np.split(by_stream, np.flatnonzero(np.diff(streams[by_stream])) + 1):
            yield self._listed[int(streams[rows[0]])].symbol, rows

    def _quotes(self, found: Found) -> Iterator[tuple[str, PlainRows]]:
        count = found.counts[QUOTE]
        for symbol, rows in self._parts(found.quotes[0, :count]):
            exch_ns, recv_ns, update_id = found.quotes[1, rows], found.quotes[2, rows], found.quotes[3, rows]
            assumed = exch_ns == 0
            if assumed.any():
                exch_ns = np.where(assumed, recv_ns - self._decoder.streams.delay_ns, exch_ns)
            columns = [exch_ns, recv_ns, update_id, *(found.quote_prices[k, rows] for k in range(4)), assumed]
            yield symbol, _rows(TOP_OF_BOOK, columns)

    def _trades(self, found: Found) -> Iterator[tuple[str, PlainRows]]:
        count = found.counts[TRADE]
        for symbol, rows in self._parts(found.trades[0, :count]):
            ids = list(map(str, found.trades[3, rows].tolist()))
            price, qty = found.trade_prices[0, rows], found.trade_prices[1, rows]
            times = found.trades[1, rows], found.trades[2, rows]
            yield symbol, _rows(TRADES, [*times, ids, price, qty, found.sells[rows]])

    def _changes(self, found: Found) -> Iterator[tuple[str, PlainRows]]:
        """One row per level, bids first."""
        count = found.counts[DEPTH]
        for symbol, rows in self._parts(found.levels[0, :count]):
            sides, (price, qty) = found.asks[rows], found.level_prices[:, rows]
            times_and_id = [found.levels[k, rows] for k in (1, 2, 3)]
            yield symbol, _rows(BOOK_DELTAS, [*times_and_id, sides, price, qty, np.zeros(len(price), np.bool_)])


def _rows(table: Table, columns: Sequence[Cells]) -> PlainRows:
    """The last column of each table is that receipts are assumed, which they are not."""
    height = len(columns[0])
    return plain_rows(table, height, [*columns, np.zeros(height, np.bool_)])
