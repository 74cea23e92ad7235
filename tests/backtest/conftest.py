"""Small markets for the servers' tests: tapes with every kind of row, made without the simulator."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from backtest.market.tape import DEPTH, LEVEL, LIQUIDATION, MARK, QUOTE, TRADE, Book, Instrument, Rows, Tape
from core.units import NS_PER_HOUR, NS_PER_MS, NS_PER_S

BTC_UM = Instrument("binance_um", "BTCUSDT", 0.1, 0.001, 1, 3, 60_000.0)
ETH_BYBIT = Instrument("bybit", "ETHUSDT", 0.01, 0.01, 2, 2, 3_000.0)
START_NS = 1_767_592_800 * NS_PER_S

Chunks = list[list[Tape]]
MakeChunks = Callable[..., Chunks]


def _table(dtype: np.dtype[np.void], times: Rows, **columns: object) -> Rows:
    rows = np.zeros(times.size, dtype)
    rows["recv_ns"] = times
    rows["exch_ns"] = (times - 5 * NS_PER_MS) // NS_PER_MS * NS_PER_MS
    for name, values in columns.items():
        rows[name] = values
    return rows


class TapeMaker:
    """One instrument's tapes: a book of 20 levels a side whose quantities change, and random prices around it."""

    def __init__(self, instrument: Instrument, seed: int, residue: int) -> None:
        self.instrument, self.rng, self.residue = instrument, np.random.default_rng(seed), residue
        self.number = 100
        ticks = np.arange(1, 21)
        self.middle = round(instrument.start_price / instrument.tick)
        self.book = {(1, self.middle - tick): 5 for tick in ticks} | {(-1, self.middle + tick): 5 for tick in ticks}

    def times(self, from_ns: int, to_ns: int, count: int) -> Rows:
        """Unique receive times: no two makers share the residue modulo 100 ns, no two kinds of one maker a time."""
        drawn = np.sort(self.rng.choice((to_ns - from_ns) // 1000, count, replace=False)) * 1000 + from_ns
        self.residue += 10
        return drawn + self.residue % 1000

    def price(self, ticks: object) -> Rows:
        return np.round(np.asarray(ticks) * self.instrument.tick, self.instrument.price_decimals)

    def qty(self, lots: object) -> Rows:
        return np.round(np.asarray(lots) * self.instrument.lot, self.instrument.qty_decimals)

    def snapshot(self, from_ns: int) -> Book:
        levels = sorted(self.book.items(), key=lambda item: (-item[0][0], -item[0][0] * item[0][1]))
        sides, ticks = np.array([side for (side, _), _ in levels]), np.array([tick for (_, tick), _ in levels])
        rows = np.zeros(len(levels), LEVEL)
        rows["side"], rows["price"] = sides, self.price(ticks)
        rows["qty"] = self.qty([lots for _, lots in levels])
        return Book((from_ns // NS_PER_MS) * NS_PER_MS, from_ns, self.number, rows)

    def depth(self, times: Rows) -> tuple[Rows, Rows]:
        levels, spans = [], []
        for _ in times:
            first = len(levels)
            for side in (1, -1):
                for away in np.sort(self.rng.choice(24, 3, replace=False)) + 1:
                    tick, lots = self.middle - side * away, int(self.rng.integers(0, 4))
                    known = self.book.pop((side, tick), 0)
                    if lots:
                        self.book[side, tick] = lots
                    if lots or known:
                        levels.append((side, self.price(tick), self.qty(lots)))
            spans.append((first, len(levels)))
        span = np.array(spans, "i8").reshape(-1, 2)
        update = self.number + 1 + np.arange(times.size)
        self.number += times.size
        rows = _table(
            DEPTH, times, first_update_id=update, update_id=update, prev_update_id=update - 1,
            level_start=span[:, 0], level_stop=span[:, 1],
        )  # fmt: skip
        return rows, np.array(levels, LEVEL)

    def tape(self, from_ns: int, to_ns: int, count: int) -> Tape:
        rng, book = self.rng, self.snapshot(from_ns)
        times = [
            self.times(from_ns, to_ns, size) for size in (count, count, max(count // 5, 1), 3, max(count // 10, 2))
        ]
        bid = self.middle - rng.integers(1, 9, count)
        first = self.number * 1_000
        quotes = _table(
            QUOTE, times[0], update_id=first + np.arange(count), bid_price=self.price(bid),
            bid_qty=self.qty(rng.integers(1, 10**6, count)), ask_price=self.price(bid + 1),
            ask_qty=self.qty(rng.integers(1, 10**6, count)),
        )  # fmt: skip
        trades = _table(
            TRADE, times[1], trade_id=first + np.arange(count), price=self.price(bid),
            qty=self.qty(rng.integers(1, 10**6, count)), taker_side=rng.choice([-1, 1], count),
        )  # fmt: skip
        depth, levels = self.depth(times[2])
        liquidations = _table(
            LIQUIDATION, times[3], liquidated=rng.choice([-1, 1], 3), price=self.price(bid[:1]), qty=self.qty([7, 8, 9])
        )
        size = times[4].size
        unknown = self.instrument.venue == "binance_um"
        marks = _table(
            MARK, times[4], mark_price=np.round(self.price(bid[:1]) + rng.random(size), 8),
            index_price=np.round(self.price(bid[:1]) + rng.random(size).round(1), 8),
            funding_rate=np.round(rng.integers(-3, 3, size) / 1e5, 8),
            next_funding_ns=(from_ns // (8 * NS_PER_HOUR) + 1) * 8 * NS_PER_HOUR,
            open_interest=np.nan if unknown else self.qty(rng.integers(10**7, 10**7 + 2, size)),
        )  # fmt: skip
        return Tape(
            self.instrument, from_ns, to_ns, book, quotes, trades, depth, levels, liquidations, marks
        )  # fmt: skip


@pytest.fixture(scope="session")
def make_chunks() -> MakeChunks:
    """`make_chunks(chunks, rows, seed)`: some ten-second chunks of a Binance and a Bybit instrument."""

    def make(chunks: int = 2, rows: int = 50, seed: int = 1) -> Chunks:
        makers = [TapeMaker(BTC_UM, seed, 1), TapeMaker(ETH_BYBIT, seed + 1, 2)]
        edges = [START_NS + index * 10 * NS_PER_S for index in range(chunks + 1)]
        return [[maker.tape(begin, end, rows) for maker in makers] for begin, end in itertools.pairwise(edges)]

    return make
