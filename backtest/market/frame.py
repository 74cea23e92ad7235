"""What a venue's frame says of itself: its stream, symbol, ids and time. For ledgers of what was done to frames."""

import re
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from core.config import StreamKind

_HEAD: Final = re.compile(r'\s*\{\s*"(?:stream|topic|e)"\s*:\s*"([^"]+)"')
_SYMBOL: Final = re.compile(r'"(?:s|symbol)"\s*:\s*"([^"]+)"')
_KINDS: Final[tuple[tuple[str, StreamKind], ...]] = (
    (r"bookTicker|orderbook\.1\.", "quotes"),
    (r"aggTrade|publicTrade|trade", "trades"),
    (r"depth(5|10|20)\b", "partial"),
    (r"depth|orderbook", "depth"),
    (r"markPrice|tickers", "marks"),
    (r"forceOrder|allLiquidation", "liquidations"),
    (r"kline", "klines"),
)


class Facts(NamedTuple):
    """`first_id`, `last_id` as the venue writes them, "" where it numbers nothing; `exch_ms` 0 where it says none."""

    stream: str
    kind: StreamKind
    symbol: str
    first_id: int | str
    last_id: int | str
    exch_ms: int


def stream_of(text: str) -> tuple[str, StreamKind | None]:
    """The stream of a frame and its kind, None for an answer. Raw frames name no symbol in it: it is added."""
    found = _HEAD.match(text)
    if found is None:
        return ("bookTicker", "quotes") if text.startswith('{"u":') else ("", None)
    stream, kind = found[1], _kind(found[1])
    if "@" in stream or "." in stream or kind is None:
        return stream, kind
    symbol = _SYMBOL.search(text)
    return (f"{symbol[1].lower()}@{stream}" if symbol else stream), kind


@cache
def _kind(stream: str) -> StreamKind | None:
    return next((kind for pattern, kind in _KINDS if re.search(pattern, stream)), None)


def facts(text: str) -> Facts | None:
    """What a market frame says, None for anything else."""
    stream, kind = stream_of(text)
    if kind is None:
        return None
    frame = msgspec.json.decode(text)
    payload = frame.get("data", frame)
    rows = payload if isinstance(payload, list) else [payload.get("o", payload) if kind == "liquidations" else payload]
    symbol = rows[0].get("s") or rows[0].get("symbol") or stream.rpartition(".")[2]
    first, last = _ids(kind, rows)
    return Facts(stream, kind, str(symbol), first, last, _exch_ms(kind, frame, rows))


def _ids(kind: StreamKind, rows: list[dict[str, Any]]) -> tuple[int | str, int | str]:
    match kind:
        case "trades":
            first, last = (row.get("a", row.get("t", row.get("i", ""))) for row in (rows[0], rows[-1]))
            return first, last
        case "quotes" | "depth" | "partial":
            last = rows[0].get("u", "")
            return rows[0].get("U", last), last
    return "", ""


def _exch_ms(kind: StreamKind, frame: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    """The engine's time where the frame has one. `T` of a mark price is the next funding's."""
    if kind == "klines":
        return int(rows[0].get("k", {}).get("t", rows[0].get("start", 0)))
    own = rows[0].get("E") if kind == "marks" else rows[0].get("T", rows[0].get("E"))
    return int(own or frame.get("cts") or frame.get("ts") or 0)
