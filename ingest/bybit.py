"""Bybit v5 public topics to events, without I/O (exchange_protocols.md section C). Linear; spot and inverse alike.

`orderbook.1` gives best prices, deeper books give changes. `tickers` sends only what changed, so the decoder keeps the
rest; open interest counts both sides there and is halved unless the one-sided figure comes with it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from core.schema import BOOK_DELTAS, KLINES, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES
from ingest import bybit_wire as wire
from ingest.bybit_streams import BybitStreams, Venue
from ingest.events import DecodeError, Event, Gap, TradeHole
from ingest.frame_gaps import frame_gap, stream_name
from ingest.open_holes import OpenHole
from ingest.wire import MALFORMED, frame_bytes, message_decoder

Route: TypeAlias = Callable[[bytes, int], list[Event]]
_ENVELOPE: Final = b'{"topic":"'
_NAME_AT: Final = len(_ENVELOPE)


class BybitDecoder:
    """Decoder of a venue's connections, which may overlap. What it keeps count of: `ingest.venues.Decoder`.

    `keep_levels` keeps rebuilding books also where the connection has best prices of its own. Trade ids have no order
    here, so nothing is known to be `missed`, and `refills` is without effect.
    """

    def __init__(self, venue: Venue, keep_levels: bool = False) -> None:
        self.venue = venue
        self.refused: list[str] = []
        self.missed: list[TradeHole] = []
        self.refills = False
        self._streams = BybitStreams(venue, keep_levels)
        self.ignored, self.repeated = self._streams.ignored, self._streams.repeated
        self.books = self._streams.books
        self._routes: dict[bytes, Route] = {}

    def decode(self, frame: str | bytes, recv_ns: int) -> list[Event]:
        """The events of a frame; none for acks, repeats and topics that no table holds. Raises DecodeError."""
        if isinstance(frame, str):
            frame = frame_bytes(frame)
        try:
            if frame.startswith(_ENVELOPE):
                ends_at = frame.find(b'"', _NAME_AT)
                if ends_at < 0:
                    raise DecodeError("cut short within its topic")
                topic = frame[_NAME_AT:ends_at]
                route = self._routes.get(topic) or self._route(topic)
            else:
                route = self._other_route(frame)
            return route(frame, recv_ns)
        except MALFORMED as error:
            raise DecodeError(str(error)) from error

    def decode_rest(self, url: str, body: str | bytes, recv_ns: int) -> list[Event]:
        """Nothing: Bybit's books start from the stream's own snapshots. What came is counted."""
        return self._streams.ignore(f"rest {url.partition('?')[0].rsplit('/', 1)[-1][:40]}", b"", recv_ns)

    def resume(self, symbol: str, last_id: int, exch_ns: int, recv_ns: int, holes: Sequence[OpenHole] = ()) -> None:
        """Nothing: what came since cannot be told from ids that are no sequence."""

    def missing(self, hole: TradeHole) -> list[tuple[int, int]]:
        """Bybit's trades have no order of ids to tell it, and `missed` stays empty."""
        return [(hole.first_id, hole.last_id)]

    @property
    def wants_snapshot(self) -> list[str]:
        """Symbols whose topic must be subscribed to again: a delta did not follow, and only that brings a snapshot."""
        return [symbol for symbol, book in self.books.items() if book.wants_snapshot]

    def stream_of(self, frame: bytes) -> tuple[str, str] | None:
        """(symbol, table) that a frame's topic names; None if it cannot be read."""
        kind, _, rest = stream_name(frame, _ENVELOPE).partition(".")
        handler = _handler_of(kind, rest)
        return (rest.rpartition(".")[2], handler.table) if handler else None

    def gap_of(self, frame: str | bytes, recv_ns: int, why: str) -> list[Gap]:
        """The gap that a frame which did not decode leaves in its topic; none if its topic cannot be read."""
        kind, _, rest = stream_name(frame, _ENVELOPE).partition(".")
        handler, symbol = _handler_of(kind, rest), rest.rpartition(".")[2]
        last_ns = self._streams.last_ns(symbol, handler.table) if handler else 0
        if handler is None or not last_ns:
            return []
        self._streams.spoilt(symbol, handler.table)
        return [frame_gap(symbol, handler.table, last_ns, recv_ns, why, handler.table == BOOK_DELTAS.name)]

    def interrupted(self, recv_ns: int) -> list[Event]:
        """The connection was lost at `recv_ns`: books and tickers start over with the topics' snapshots."""
        return self._streams.interrupted(recv_ns)

    def finish(self, recv_ns: int) -> list[Event]:
        """The connection has ended for good: the gaps that are still open."""
        return self._streams.finish(recv_ns)

    def _route(self, topic: bytes) -> Route:
        """The handler of a topic: `orderbook.50.BTCUSDT`, `publicTrade.BTCUSDT`, ..."""
        name = msgspec.json.decode(b'"' + topic + b'"', type=str)
        kind, _, rest = name.partition(".")
        handler = _handler_of(kind, rest)
        if handler is None or (kind == "tickers" and self.venue == "bybit_spot"):  # without mark price and funding
            return partial(self._streams.ignore, name.rpartition(".")[0][:40] or kind[:40])
        method = getattr(self._streams, handler.method)
        route = self._routes[topic] = partial(method, name, message_decoder(handler.wire_type))
        return route

    def _other_route(self, frame: bytes) -> Route:
        """Frames that do not begin with their topic: acks, pongs, refusals, keys in another order."""
        head = wire.read_head(frame)
        if head.topic is not None:
            return self._route(msgspec.json.encode(head.topic)[1:-1])
        if head.success is False:
            self.refused.append(frame[:200].decode(errors="replace"))
            return partial(self._streams.ignore, "refused")
        return partial(self._streams.ignore, "ack" if head.op is not None else "unknown")


class _Handler(NamedTuple):
    wire_type: Any
    method: str
    table: str


_TOP: Final = _Handler(wire.OrderBook, "top", TOP_OF_BOOK.name)
_BOOK: Final = _Handler(wire.OrderBook, "book", BOOK_DELTAS.name)
_HANDLERS: Final = {
    "publicTrade": _Handler(wire.PublicTrade, "trades", TRADES.name),
    "tickers": _Handler(wire.Tickers, "ticker", MARK_PRICES.name),
    "allLiquidation": _Handler(wire.AllLiquidation, "liquidations", LIQUIDATIONS.name),
    "kline": _Handler(wire.Kline, "kline", KLINES.name),
}


def _handler_of(kind: str, rest: str) -> _Handler | None:
    """By a topic's first part, and the depth of a book."""
    if kind == "orderbook":
        depth = rest.partition(".")[0]
        return _TOP if depth == "1" else _BOOK if depth.isdigit() else None
    return _HANDLERS.get(kind)
