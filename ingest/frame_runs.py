"""Runs of Binance frames straight to rows, an order of magnitude faster than event by event.

Whoever has many frames at once (a recording, or a socket that brings some hundred per read) needs no structs of them:
`FrameRuns` scans what is as always into columns (ingest/frame_scan.py), and hands the rest to the ordinary decoder,
whose state it shares. Both give the same rows, where each table of a symbol has one stream, as plans ask for; a spot
quote's assumed time alone is that of the run's begin.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from core.schema import BOOK_DELTAS, BOOK_SIDE, TAKER_SIDE, TOP_OF_BOOK, TRADES, Table
from ingest.binance import ENVELOPE, BinanceDecoder
from ingest.events import DecodeError, Event
from ingest.frame_gaps import stream_name
from ingest.frame_scan import DEPTH, KINDS, QUOTE, STATE_SIZE, TRADE, Found, Streams, room_for, scan
from ingest.frame_text import Ints, hash_name

_TABLES: Final = {QUOTE: TOP_OF_BOOK, TRADE: TRADES, DEPTH: BOOK_DELTAS}
_KIND_OF: Final = {"bookTicker": QUOTE, "aggTrade": TRADE, "depth": DEPTH}
_UNIVERSE: Final = {"binance": 0, "binance_um": 1, "binance_cm": 2}
_LONGEST_SYMBOL: Final = 40
_AT_ONCE: Final = 32
_SIDES: Final = pl.Series(["bid", "ask"], dtype=BOOK_SIDE)
_TAKERS: Final = pl.Series(["buy", "sell"], dtype=TAKER_SIDE)


class Rows(NamedTuple):
    """Rows of one table of one symbol, in order of receipt."""

    table: Table
    symbol: str
    frame: pl.DataFrame


class Run(NamedTuple):
    """What a run of frames gave: rows, and events that were made one by one, each stream's in order of receipt.

    `broken` are the frames that did not decode, with their receipt and why.
    """

    told: list[Rows | Event]
    broken: list[tuple[bytes, int, str]]


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

    def decode(self, frames: Sequence[bytes], recv_ns: Sequence[int]) -> Run:
        """The rows and events of frames in the order of their receipt.

        A few of the frames that are left by a scan are decoded, and the rest is scanned once more: one that came twice
        holds up its stream no longer then, and a new stream is known.
        """
        run = Run([], [])
        while frames:
            left = self._scan(frames, recv_ns, run)
            for place in left[:_AT_ONCE]:
                self._decode(frames[place], recv_ns[place], run)
            rest = left[_AT_ONCE:]
            frames, recv_ns = [frames[place] for place in rest], [recv_ns[place] for place in rest]
        return run

    def _scan(self, frames: Sequence[bytes], recv_ns: Sequence[int], run: Run) -> list[int]:
        """Scan what is as always into `run`. Returns the places of the others."""
        data = np.frombuffer(b"".join(frames), np.uint8)
        starts = np.zeros(len(frames) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, frames), np.int64, len(frames)), out=starts[1:])
        found = self._make_room(len(frames), data.size)
        self._look_up()
        scan(data, starts, np.fromiter(recv_ns, np.int64, len(frames)), self._streams, found)
        for rows in (self._quotes(found), self._trades(found), self._changes(found)):
            run.told.extend(rows)
        self._move_on()  # after the rows were made: spot quotes take the clock of the run's begin
        left: list[int] = found.left[: found.counts[KINDS]].tolist()
        return left

    def _decode(self, frame: bytes, recv_ns: int, run: Run) -> None:
        try:
            run.told.extend(self._decoder.decode(frame, recv_ns))
        except DecodeError as error:
            run.broken.append((frame, recv_ns, str(error)))
        else:
            self._meet(frame)

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

    def _quotes(self, found: Found) -> Iterator[Rows]:
        count = found.counts[QUOTE]
        for symbol, rows in self._parts(found.quotes[0, :count]):
            exch_ns, recv_ns, update_id = found.quotes[1, rows], found.quotes[2, rows], found.quotes[3, rows]
            assumed = exch_ns == 0
            if assumed.any():
                exch_ns = np.where(assumed, recv_ns - self._decoder.streams.delay_ns, exch_ns)
            columns = [exch_ns, recv_ns, update_id, *(found.quote_prices[k, rows] for k in range(4)), assumed]
            yield _rows(TOP_OF_BOOK, symbol, columns)

    def _trades(self, found: Found) -> Iterator[Rows]:
        count = found.counts[TRADE]
        for symbol, rows in self._parts(found.trades[0, :count]):
            ids, takers = pl.Series(found.trades[3, rows]).cast(pl.String), _TAKERS.gather(found.sells[rows])
            price, qty = found.trade_prices[0, rows], found.trade_prices[1, rows]
            yield _rows(TRADES, symbol, [found.trades[1, rows], found.trades[2, rows], ids, price, qty, takers])

    def _changes(self, found: Found) -> Iterator[Rows]:
        """One row per level, bids first."""
        count = found.counts[DEPTH]
        for symbol, rows in self._parts(found.levels[0, :count]):
            sides, (price, qty) = _SIDES.gather(found.asks[rows]), found.level_prices[:, rows]
            times_and_id = [found.levels[k, rows] for k in (1, 2, 3)]
            yield _rows(BOOK_DELTAS, symbol, [*times_and_id, sides, price, qty, np.zeros(len(price), np.bool_)])


def _rows(table: Table, symbol: str, columns: Sequence[Any]) -> Rows:
    """The last column of each table is that receipts are assumed, which they are not."""
    whole = [*columns, np.zeros(len(columns[0]), np.bool_)]
    own = (values.copy() if isinstance(values, np.ndarray) else values for values in whole)  # Polars shares memory
    frame = pl.DataFrame([pl.Series(name, values) for name, values in zip(table.columns, own, strict=True)])
    return Rows(table, symbol, frame)
