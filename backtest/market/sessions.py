"""The two venues' subscription protocols, without I/O: what a client may ask on a connection and what it is answered.

Binance USD-M (exchange_protocols.md A.1, A.2): streams in the URL or by SUBSCRIBE, raw on `/ws` and wrapped on
`/stream`, split into `/public` (book) and `/market` (everything else). A stream asked for on the wrong side is
acknowledged and stays silent, and so does one that does not exist. Bybit linear (C.2): `subscribe` is all or nothing.

Over their limits the venues refuse (1,024 streams, 21,000 characters of topics) or hang up (10 messages a second). What
they say then is not documented: the words are ours.
"""

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from backtest.market.candles import INTERVAL_NS
from core.units import NS_PER_MINUTE

Kind = Literal["quotes", "trades", "depth", "partial", "marks", "liquidations", "klines"]
BINANCE: Final = "binance_um"
BYBIT: Final = "bybit"
BYBIT_PATH: Final = "/v5/public/linear"
BYBIT_INTERVALS: Final = {
    "D" if name == "1d" else str(length_ns // NS_PER_MINUTE): name for name, length_ns in INTERVAL_NS.items()
}
"""Candle lengths by Bybit's names, minutes and D, as Binance's."""
_CATEGORY_OF: Final[dict[Kind, str]] = {
    "quotes": "public",
    "depth": "public",
    "partial": "public",
    "trades": "market",
    "marks": "market",
    "liquidations": "market",
    "klines": "market",
}
MOST_STREAMS: Final = 1_024  # per Binance connection (A.2)
MOST_CHARACTERS: Final = 21_000  # of topics per Bybit connection (C.2)
_MOST_MESSAGES: Final = 10  # from a Binance client in a second (A.2)
_BINANCE_STREAM: Final = re.compile(
    r"(?P<symbol>[^@A-Z]+)@(?:(?P<quotes>bookTicker)|(?P<trades>aggTrade)|(?P<liquidations>forceOrder)"
    r"|(?P<marks>markPrice)(?P<every>@1s)?|(?P<klines>kline)_(?P<interval>\w+)|(?:(?P<partial>depth(?P<levels>5|10|20))|(?P<depth>depth))(?:@[125]?[05]0ms)?)"
)
_BYBIT_TOPIC: Final = re.compile(
    r"(?:(?:orderbook\.(?:(?P<quotes>1)|(?P<depth>50|200|1000)))|(?P<trades>publicTrade)|(?P<marks>tickers)"
    r"|(?P<liquidations>allLiquidation)|(?P<klines>kline)\.(?P<interval>\w+))\.(?P<symbol>\w+)"
)


@dataclass(frozen=True)
class Topic:
    """Something to subscribe to. `name` as the client wrote it; `levels` of a book view, 0 where there is none.

    `every` keeps each n-th second of a stream that is slower than the market's own (Binance markPrice without @1s).
    `interval` is that of a candle, as Binance writes it.
    """

    name: str
    symbol: str
    kind: Kind
    levels: int = 0
    every: int = 1
    interval: str = ""


@dataclass
class Session:
    """What one connection has asked for. A name whose topic is None is acknowledged and never heard of again."""

    venue: str
    category: str = "public"
    combined: bool = False
    number: int = 0
    topics: dict[str, Topic | None] = field(default_factory=dict)
    said_s: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_MESSAGES + 1))
    """When the client's last messages came."""

    @property
    def heard(self) -> list[Topic]:
        return [topic for topic in self.topics.values() if topic is not None]


class _Binance(msgspec.Struct):
    method: str
    id: int | str | None = None
    params: list[str | bool] = []


class _Bybit(msgspec.Struct):
    op: str
    req_id: str = ""
    args: list[str] = []


def open_session(target: str, number: int, category: str = "public") -> Session | None:
    """The session of a connection to a request target (path and query), None where no venue listens.

    The unrouted `/ws` and `/stream` are USD-M's retired URLs: they acknowledge all and give streams of one `category`
    only. They are spot's too, which has no categories ("").
    """
    parts = urlsplit(target)
    if parts.path.rstrip("/") == BYBIT_PATH:
        return Session(BYBIT, number=number, combined=True)
    place = [unquote(part) for part in parts.path.split("/") if part]
    category = place.pop(0) if place and place[0] in ("public", "market") else category
    if not place or place[0] not in ("ws", "stream"):
        return None
    session = Session(BINANCE, category, combined=place[0] == "stream", number=number)
    streams = place[1:] if place[0] == "ws" else parse_qs(parts.query).get("streams", [""])[0].split("/")
    for name in filter(None, streams):
        session.topics[name] = _routed(session, name)
    return session


def hangs_up(session: Session, now_s: float) -> str:
    """Why the venue hangs up on a client that says something at `now_s`, empty if it does not."""
    session.said_s.append(now_s)
    many = len(session.said_s) > _MOST_MESSAGES and now_s - session.said_s[0] < 1.0
    return "Too many requests" if many and session.venue == BINANCE else ""


def answer(session: Session, message: str) -> tuple[str, list[Topic]]:
    """The venue's answer to a client's message, and the topics that were asked for anew. Changes the session."""
    known = set(session.topics)
    text = _answer_bybit(session, message) if session.venue == BYBIT else _answer_binance(session, message)
    return text, [topic for topic in session.heard if topic.name not in known]


def binance_topic(name: str) -> Topic | None:
    """A USD-M stream name as a topic, None for what is not served."""
    found = _BINANCE_STREAM.fullmatch(name)
    if found is None or (found["klines"] and found["interval"] not in INTERVAL_NS):
        return None
    every = 3 if found["marks"] and not found["every"] else 1
    return Topic(name, found["symbol"].upper(), _kind(found), int(found["levels"] or 0), every, found["interval"] or "")


def bybit_topic(name: str) -> Topic | None:
    """A Bybit v5 linear topic, None for what is not served."""
    found = _BYBIT_TOPIC.fullmatch(name)
    if found is None or (found["klines"] and found["interval"] not in BYBIT_INTERVALS):
        return None
    interval = BYBIT_INTERVALS.get(found["interval"] or "", "")
    return Topic(name, found["symbol"], _kind(found), int(found["depth"] or found["quotes"] or 0), interval=interval)


def _kind(found: re.Match[str]) -> Kind:
    return next(kind for kind in _CATEGORY_OF if found.groupdict().get(kind))


def _routed(session: Session, name: str) -> Topic | None:
    """The topic, unless this connection's category does not carry it: then silence, as at the venue."""
    topic = binance_topic(name)
    return topic if topic and session.category in ("", _CATEGORY_OF[topic.kind]) else None


def _answer_binance(session: Session, message: str) -> str:
    try:
        request = msgspec.json.decode(message, type=_Binance)
    except msgspec.DecodeError as error:
        return _encoded({"error": {"code": 2, "msg": f"Invalid request: {error}"}, "id": None})
    names = [name for name in request.params if isinstance(name, str)]
    match request.method:
        case "SUBSCRIBE" if len(session.topics.keys() | set(names)) > MOST_STREAMS:
            why = f"Invalid request: at most {MOST_STREAMS} streams per connection"
            return _encoded({"error": {"code": 2, "msg": why}, "id": request.id})
        case "SUBSCRIBE":
            session.topics |= {name: _routed(session, name) for name in names if name not in session.topics}
        case "UNSUBSCRIBE":
            for name in names:
                session.topics.pop(name, None)
        case "LIST_SUBSCRIPTIONS":
            return _encoded({"result": list(session.topics), "id": request.id})
        case "SET_PROPERTY" if request.params[:1] == ["combined"] and isinstance(request.params[-1], bool):
            session.combined = request.params[-1]
        case method:
            why = f"Invalid request: unknown variant or parameters for `{method}`"
            return _encoded({"error": {"code": 2, "msg": why}, "id": request.id})
    return _encoded({"result": None, "id": request.id})


def _answer_bybit(session: Session, message: str) -> str:
    conn_id = f"00000000-0000-4000-8000-{session.number:012d}"
    try:
        request = msgspec.json.decode(message, type=_Bybit)
    except msgspec.DecodeError as error:
        return _bybit_ack(conn_id, "", "", f"error:{error}")
    match request.op:
        case "ping":
            return _bybit_ack(conn_id, request.req_id, "ping", ret_msg="pong")
        case "subscribe":
            refusal = _refusal(session, request.args)
            if not refusal:
                session.topics |= {name: bybit_topic(name) for name in request.args}
            return _bybit_ack(conn_id, request.req_id, "subscribe", refusal)
        case "unsubscribe":
            for name in request.args:
                session.topics.pop(name, None)
            return _bybit_ack(conn_id, request.req_id, "unsubscribe")
    return _bybit_ack(conn_id, request.req_id, request.op, f"error:unknown op {request.op}")


def _refusal(session: Session, names: list[str]) -> str:
    """Why a request is refused as a whole, empty if it is not."""
    for name in names:
        if name in session.topics:
            return f"error:already subscribed,topic:{name}"
        if bybit_topic(name) is None:
            return f"error:handler not found,topic:{name}"
    if sum(map(len, (*session.topics, *names))) > MOST_CHARACTERS:
        return f"error:args of a connection are at most {MOST_CHARACTERS} characters"
    return ""


def _bybit_ack(conn_id: str, req_id: str, op: str, refusal: str = "", ret_msg: str = "") -> str:
    body = {"success": not refusal, "ret_msg": refusal or ret_msg, "conn_id": conn_id, "req_id": req_id, "op": op}
    return _encoded(body)


def _encoded(body: dict[str, Any]) -> str:
    return msgspec.json.encode(body).decode()
