"""Frames of Binance USD-M for a load: best prices by the million, and a mix of all kinds; and the ledger of them."""

import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DEPTH_LEVELS = 5  # per side
FIRST_ID = 100_000_000_000
NS_PER_MS = 1_000_000


@dataclass
class Ledger:
    """What was sent: frames, and [rows, sum of ids] by `symbol table`."""

    frames: int = 0
    first_ns: int = 0
    last_ns: int = 0
    broken: list[str] = field(default_factory=list)
    rows: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def add(self, symbol: str, table: str, rows: int, ids: int) -> None:
        entry = self.rows[f"{symbol} {table}"]
        entry[0] += rows
        entry[1] += ids


def message(body: bytes) -> bytes:
    """A WebSocket text message, unmasked (RFC 6455 section 5.2)."""
    if len(body) < 126:
        return bytes((0x81, len(body))) + body
    return b"\x81\x7e" + struct.pack(">H", len(body)) + body


class TickerFrames:
    """bookTicker frames of one length in one array, symbols in turn; ids, times, prices are written digit by digit."""

    _ID, _TIME = b"9" * 19, b"8" * 13
    _BID, _ASK, _QTY = b"60000.77", b"60001.77", b"66.666"

    def __init__(self, symbols: tuple[str, ...], frames: int) -> None:
        assert len({len(symbol) for symbol in symbols}) == 1, "symbols must be of one length"
        assert frames % len(symbols) == 0, "symbols must come in turn"
        texts = [self._text(symbols[place % len(symbols)]) for place in range(frames)]
        self.array = np.frombuffer(b"".join(texts), np.uint8).reshape(frames, -1).copy()
        self._at = {name: texts[0].index(name) for name in (self._ID, self._TIME, self._BID, self._ASK, self._QTY)}
        self._engine = texts[0].rindex(self._TIME)
        self._random = np.random.default_rng(1)

    def _text(self, symbol: str) -> bytes:
        data = b'{"e":"bookTicker","u":%b,"E":%b,"T":%b,"s":"%b","b":"%b","B":"%b","a":"%b","A":"31.210","st":1}' % (
            self._ID,
            self._TIME,
            self._TIME,
            symbol.encode(),
            self._BID,
            self._QTY,
            self._ASK,
        )
        return message(b'{"stream":"%b@bookTicker","data":%b}' % (symbol.lower().encode(), data))

    def fill(self, ids: "np.ndarray[Any, np.dtype[np.int64]]", now_ms: int) -> bytes:
        """The frames with these ids (19 digits, one per frame), stamped now."""
        count = ids.size
        self._write(self._at[self._ID], 19, ids)
        for place in (self._at[self._TIME], self._engine):
            self.array[:count, place : place + 13] = np.frombuffer(b"%d" % now_ms, np.uint8)
        cents = self._random.integers(0, 100, count)
        self._write(self._at[self._BID] + 6, 2, cents)
        self._write(self._at[self._ASK] + 6, 2, cents)
        self._write(self._at[self._QTY] + 3, 3, self._random.integers(0, 1000, count))
        return self.array[:count].tobytes()

    def _write(self, place: int, digits: int, values: "np.ndarray[Any, np.dtype[np.int64]]") -> None:
        for digit in range(digits):
            values, rest = np.divmod(values, 10)
            self.array[: values.size, place + digits - 1 - digit] = rest + 48


def _in_turn(symbols: tuple[str, ...], seed: int) -> Iterator[str]:
    """Symbols without end, the n-th of them in proportion to 1/n, as activity is spread in a market."""
    random = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, len(symbols) + 1)
    while True:
        for place in random.choice(len(symbols), 4_096, p=weights / weights.sum()).tolist():
            yield symbols[place]


def public_frames(symbols: tuple[str, ...], ledger: Ledger) -> Iterator[bytes]:
    """Best prices, and each seventh frame a change of ten levels. Ids are shared by both, as at the venue."""
    last = dict.fromkeys(symbols, FIRST_ID)
    changed = dict.fromkeys(symbols, FIRST_ID)
    for number, symbol in enumerate(_in_turn(symbols, 1)):
        update = last[symbol] = last[symbol] + 1
        now_ms, name = time.time_ns() // NS_PER_MS, symbol.lower()
        if number % 7:
            ledger.add(symbol, "top_of_book", 1, update)
            yield (
                f'{{"stream":"{name}@bookTicker","data":{{"e":"bookTicker","u":{update},"E":{now_ms},"T":{now_ms},'
                f'"s":"{symbol}","b":"60000.{update % 90 + 10}","B":"31.210","a":"60001.10","A":"40.660"}}}}'
            ).encode()
            continue
        before, changed[symbol] = changed[symbol], update
        ledger.add(symbol, "book_deltas", 2 * DEPTH_LEVELS, 2 * DEPTH_LEVELS * update)
        bids = ",".join(f'["{60_000 - level}.00","{update % 9 + 1}.5"]' for level in range(DEPTH_LEVELS))
        asks = ",".join(f'["{60_002 + level}.00","{update % 7 + 1}.5"]' for level in range(DEPTH_LEVELS))
        yield (
            f'{{"stream":"{name}@depth@500ms","data":{{"e":"depthUpdate","E":{now_ms},"T":{now_ms},"s":"{symbol}",'
            f'"U":{before + 1},"u":{update},"pu":{before},"b":[{bids}],"a":[{asks}]}}}}'
        ).encode()


def market_frames(symbols: tuple[str, ...], ledger: Ledger) -> Iterator[bytes]:
    """Trades, and each tenth frame a mark price, of all symbols alike. No two marks of a symbol are of one time."""
    last, marked = dict.fromkeys(symbols, FIRST_ID), dict.fromkeys(symbols, 0)
    for number, traded in enumerate(_in_turn(symbols, 2)):
        now_ms = time.time_ns() // NS_PER_MS
        if number % 10:
            last[traded] += 1
            ledger.add(traded, "trades", 1, last[traded])
            yield (
                f'{{"stream":"{traded.lower()}@aggTrade","data":{{"e":"aggTrade","E":{now_ms},"s":"{traded}",'
                f'"a":{last[traded]},"p":"60000.10","q":"0.014","nq":"0.014","f":1,"l":1,"T":{now_ms},"m":true}}}}'
            ).encode()
            continue
        symbol = symbols[number // 10 % len(symbols)]
        marked[symbol] = max(now_ms, marked[symbol] + 1)
        ledger.add(symbol, "mark_prices", 1, 0)
        yield (
            f'{{"stream":"{symbol.lower()}@markPrice@1s","data":{{"e":"markPriceUpdate","E":{marked[symbol]},'
            f'"s":"{symbol}","p":"60000.{number % 90 + 10}","i":"60001.20","P":"60001.20","r":"0.00010000",'
            f'"T":{now_ms}}}}}'
        ).encode()
