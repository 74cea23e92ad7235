"""The simulated market: symbols on two venues, in chunks, from a seed.

Each symbol has one flow (`flow.py`) and a book on each venue (`venue.py`): `binance_um` hears of an event at once,
`bybit` `LAG_MS` later. Everything that a chunk leaves behind is state, so the tapes do not depend on the length of the
chunks, and memory is that of one chunk.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from backtest.market import flow as fl
from backtest.market import tape as tp
from backtest.market import truth
from backtest.market import venue as vn
from backtest.market.matching import L_QTY, L_SIDE, L_TICK, UPDATE_ID, Ladder, empty_ladder
from backtest.market.rng import seeded
from backtest.market.tape import Book, Instrument, Tape
from core.config import DEFAULT_SYMBOLS, Config, Sim
from core.errors import ConfigError
from core.units import NS_PER_MINUTE, NS_PER_MS, NS_PER_S

CHUNK_MINUTES: Final = 10.0
LAG_MS: Final = {"binance_um": 0.0, "bybit": 5.0}
"""When a venue hears of an event. A null needs at most half the least order latency (20 ms), or the laggard pays."""
_TRADE_CHANCE: Final = {"binance_um": 0.9, "bybit": 0.7}
_SHARE: Final = {"binance_um": 0.6, "bybit": 0.4}
_DEPTH_OFFSET_MS: Final = {"binance_um": 250, "bybit": 125}
_STREAMS: Final = 1000  # frames of a tape are told apart by recv_ns % 1000


class Contract(NamedTuple):
    """What a symbol is: its price at the start, tick and lot as (number, decimals), and how much money is about."""

    price: float
    tick: tuple[int, int]
    lot: tuple[int, int]
    trade_usd: float
    open_interest_usd: float


CONTRACTS: Final = {
    "BTCUSDT": Contract(60_000.0, (1, 1), (1, 3), 2_500.0, 600e6),
    "ETHUSDT": Contract(3_000.0, (1, 2), (1, 3), 1_500.0, 400e6),
    "SOLUSDT": Contract(150.0, (1, 3), (1, 2), 800.0, 100e6),
    "BNBUSDT": Contract(600.0, (1, 2), (1, 2), 500.0, 60e6),
    "XRPUSDT": Contract(0.6, (1, 6), (1, 0), 500.0, 60e6),
}
OTHER: Final = Contract(100.0, (1, 3), (1, 2), 400.0, 30e6)
"""A symbol not listed: tick 0.1 bps, as a null needs (<= 0.2 bps: else imbalance would predict whole ticks)."""

# Shares of the variance, and what liquidations and the memory of signs do to it (measured by verify.py).
_TRADES_SHARE: Final = 0.75
_SURPRISE: Final = 0.88
_CASCADES: Final = 1.03
_FRONT_TRADES, _GRID_TRADES = 9.0, 12.0  # quantity at a touch and at a grid price, in median trades
_GRID_BPS: Final = 0.5


class Listing(NamedTuple):
    """One symbol on one venue: constants, state, book, buffers, and frames that belong to the next chunk."""

    instrument: Instrument
    venue: vn.Venue
    state: vn.VenueState
    book: Ladder
    frames: vn.Frames


class Burst(NamedTuple):
    """A planted burst: start on the engine's clock of the leading venue, side, and the drift to come, in bps (> 0)."""

    symbol: str
    start_ns: int
    side: int
    gross_bps: float


Columns = list[list[NDArray[np.int64]]]


class _Symbol:
    """One symbol's flow and its listings, in step."""

    def __init__(self, name: str, sim: Sim, listings: list[Listing], seed: int, start_ns: int) -> None:
        contract = CONTRACTS.get(name, OTHER)
        self.name = name
        self.flow = flow_of(sim, contract)
        self.state = fl.new_state(self.flow, contract.price, start_ns, seeded(seed, crc32(name.encode())))
        self.listings = listings
        self.bursts: list[Burst] = []
        self._waiting = [(np.empty((0, fl.E_INTS), np.int64), np.empty((0, fl.E_FLOATS))) for _ in listings]
        self._late: list[Columns] = [[[] for _ in range(6)] for _ in listings]

    def chunk(self, from_ns: int, until_ns: int) -> list[Tape]:
        """Advance to `until_ns` and cut the tapes of `[from_ns, until_ns)` on the receive clock."""
        books = [_snapshot(listing, from_ns) for listing in self.listings]
        ints, floats = self._events(until_ns)
        tapes = []
        for place, listing in enumerate(self.listings):
            waiting_ints, waiting_floats = self._waiting[place]
            events = np.concatenate((waiting_ints, ints)), np.concatenate((waiting_floats, floats))
            written, played = _publish(listing, *events, until_ns)
            self._waiting[place] = events[0][played:], events[1][played:]
            now, self._late[place] = _cut(self._late[place], written, until_ns)
            tapes.append(_tape(listing, from_ns, until_ns, books[place], now))
        return tapes

    def _events(self, until_ns: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        seconds = (until_ns - int(self.state.clock[fl.NOW_NS])) / NS_PER_S
        size = int(seconds * self.flow.event_rate * 1.5) + 4096
        parts = []
        while True:
            ints, floats = np.empty((size, fl.E_INTS), np.int64), np.empty((size, fl.E_FLOATS))
            count = fl.advance(self.flow, self.state, until_ns, ints, floats)
            parts.append((ints[:count], floats[:count]))
            if count < size:
                break
        ints, floats = (np.concatenate([part[which] for part in parts]) for which in (0, 1))
        for row in np.flatnonzero(ints[:, fl.E_KIND] == fl.BURST):
            gross_bps = abs(float(floats[row, fl.E_GROSS_BPS]))
            self.bursts.append(Burst(self.name, int(ints[row, fl.E_NS]), int(ints[row, fl.E_SIDE]), gross_bps))
        return ints, floats


class Market:
    """All symbols of a run, advanced together. `seed` and `sim` fix every frame; the clock is virtual."""

    def __init__(self, sim: Sim, symbols: Sequence[str], seed: int) -> None:
        """Symbols are `venue:SYMBOL`. Raises ConfigError for a venue that is not simulated, or too many symbols."""
        self.now_ns = truth.start_ns(sim)
        self._symbols = _listed(sim, symbols, seed, self.now_ns)
        self._pool = ThreadPoolExecutor(max_workers=2)

    def chunk(self, minutes: float = CHUNK_MINUTES) -> list[Tape]:
        """The tapes of the next `minutes` (whole seconds), by venue and symbol."""
        until_ns = self.now_ns + max(1, round(minutes * 60)) * NS_PER_S
        made = self._pool.map(lambda symbol: symbol.chunk(self.now_ns, until_ns), self._symbols)
        tapes = [tape for tapes in made for tape in tapes]
        self.now_ns = until_ns
        return sorted(tapes, key=lambda tape: tape.instrument.name)

    def truth(self) -> list[Burst]:
        """The bursts so far, by time."""
        return sorted((burst for symbol in self._symbols for burst in symbol.bursts), key=lambda burst: burst.start_ns)


def market_chunks(config: Config, stretch: Literal["history", "fresh"]) -> Iterator[list[Tape]]:
    """The tapes of a run, chunk by chunk: the first `sim.hours`, or the `sim.live_minutes` that follow them.

    The history's truth is written to `<data>/truth` after the last chunk: whoever reads the tapes may first have put
    another market's away. The fresh stretch is the same market continued, so its history is simulated again and let go.
    """
    sim = config.sim
    market = Market(sim, config.symbols or DEFAULT_SYMBOLS, config.seed)
    if stretch == "history":
        yield from _chunks(market, sim.hours * 60)
        truth.write_market(config)
        truth.write_bursts(config, market.truth())
        return
    for _ in _chunks(market, sim.hours * 60):
        pass
    yield from _chunks(market, sim.live_minutes)


def flow_of(sim: Sim, contract: Contract = OTHER) -> fl.Flow:
    """The constants of a flow with the configured volatility, bursts and planted edge."""
    plain = fl.Flow()
    variance = sim.sigma_bps**2 / (_CASCADES * plain.event_rate)
    return plain._replace(
        trade_impact_bps=math.sqrt(_TRADES_SHARE * variance / (plain.trade_share * _SURPRISE)),
        news_bps=math.sqrt((1.0 - _TRADES_SHARE) * variance / plain.news_share),
        burst_rate=sim.burst_per_hour / 3600.0,
        drift_bps=truth.drift_bps(sim),
        mean_open_interest=contract.open_interest_usd / contract.price,
    )


def _chunks(market: Market, minutes: float) -> Iterator[list[Tape]]:
    end_ns = market.now_ns + max(1, round(minutes * 60)) * NS_PER_S
    while market.now_ns < end_ns:
        yield market.chunk(min(CHUNK_MINUTES, (end_ns - market.now_ns) / NS_PER_MINUTE))


def _listed(sim: Sim, symbols: Sequence[str], seed: int, start_ns: int) -> list[_Symbol]:
    if len(symbols) >= _STREAMS:
        raise ConfigError(f"symbols: the simulator lists up to {_STREAMS - 1}, was {len(symbols)} - at `$.symbols`")
    listings: dict[str, list[Listing]] = {}
    for stream, name in enumerate(sorted(set(symbols))):
        venue, _, symbol = name.partition(":")
        if venue not in LAG_MS:
            known = ", ".join(LAG_MS)
            raise ConfigError(f"symbols: {name!r}: the simulator has the venues {known} - at `$.symbols`")
        listings.setdefault(symbol, []).append(_listing(sim, venue, symbol, stream, seed, start_ns))
    return [_Symbol(symbol, sim, of, seed, start_ns) for symbol, of in listings.items()]


def _listing(sim: Sim, venue: str, symbol: str, stream: int, seed: int, start_ns: int) -> Listing:
    contract = CONTRACTS.get(symbol, OTHER)
    tick, lot = contract.tick[0] / 10 ** contract.tick[1], contract.lot[0] / 10 ** contract.lot[1]
    trade_lots = contract.trade_usd / contract.price / lot
    constants = vn.Venue(
        tick=tick,
        lot=lot,
        grid_ticks=max(1, round(1e-4 * _GRID_BPS * contract.price / tick)),
        front_lots=_FRONT_TRADES * trade_lots * sim.liquidity,
        grid_lots=_GRID_TRADES * trade_lots * sim.liquidity,
        trade_lots=trade_lots,
        trade_chance=_TRADE_CHANCE[venue],
        share=_SHARE[venue],
        lag_ns=int(LAG_MS[venue] * NS_PER_MS),
        feed_latency_ns=int(sim.feed_latency_ms * NS_PER_MS),
        stream=stream,
        depth_offset_ns=_DEPTH_OFFSET_MS[venue] * NS_PER_MS,
        samples_liquidations=venue == "binance_um",
        pays_funding=sim.edge > 0,
        numbers_depth=venue == "bybit",
    )
    instrument = Instrument(venue, symbol, tick, lot, contract.tick[1], contract.lot[1], contract.price)
    random = seeded(seed, crc32(symbol.encode()), crc32(venue.encode()))
    interest = contract.open_interest_usd / contract.price
    state = vn.new_venue_state(constants, contract.price, interest, start_ns, random)
    listing = Listing(instrument, constants, state, empty_ladder(), vn.new_frames(8192))
    vn.open_book(constants, state, listing.book, start_ns, listing.frames)
    return listing


def _publish(
    listing: Listing, ints: NDArray[np.int64], floats: NDArray[np.float64], until_ns: int
) -> tuple[Columns, int]:
    """Play events through the listing's book, emptying its buffers as they fill. Returns the rows and events played."""
    written: Columns = [[] for _ in range(6)]
    played, full = 0, True
    while full:
        played += vn.publish(
            listing.venue, listing.state, listing.book, ints[played:], floats[played:], until_ns, listing.frames
        )
        full = vn.is_full(listing.frames)
        _drain(listing.frames, written)
    return written, played


def _drain(frames: vn.Frames, written: Columns) -> None:
    """Copy what is in the buffers and empty them; level rows of depth frames are counted from the whole."""
    depth = frames.depth[: frames.counts[2]]
    depth[:, 5:7] += sum(part.shape[0] for part in written[3])
    for column, (count, buffer) in enumerate(zip(frames.counts.tolist(), frames[1:], strict=True)):
        written[column].append(buffer[:count].copy())
    frames.counts[:] = 0


def _cut(late: Columns, written: Columns, until_ns: int) -> tuple[list[NDArray[np.int64]], Columns]:
    """Rows received before `until_ns`, and those after it, which the next chunk begins with."""
    levels_before = sum(part.shape[0] for part in late[3])
    for depth in written[2]:
        depth[:, 5:7] += levels_before
    now = [np.concatenate([*before, *parts]) for before, parts in zip(late, written, strict=True)]
    rest = list(now)
    for table in (0, 1, 2, 4, 5):
        stop = int(np.searchsorted(now[table][:, 1], until_ns))
        now[table], rest[table] = now[table][:stop], rest[table][stop:]
    first_level = int(now[2][-1, 6]) if now[2].size else 0
    rest[3] = now[3][first_level:]
    now[3] = now[3][:first_level]
    rest[2] = rest[2] - np.array([0, 0, 0, 0, 0, first_level, first_level])
    return now, [[rows] for rows in rest]


def _snapshot(listing: Listing, now_ns: int) -> Book:
    """The whole book, bids first, each side best first."""
    levels = listing.book.levels
    held = levels[levels[:, L_QTY] > 0][:, [L_SIDE, L_TICK, L_QTY]]
    rows = held[np.lexsort((-held[:, 0] * held[:, 1], -held[:, 0]))]
    last_id = listing.state.ints[vn.DEPTH_ID] if listing.venue.numbers_depth else listing.book.info[UPDATE_ID]
    return Book(now_ns, now_ns + listing.venue.stream, int(last_id), _levels(listing.instrument, rows))


def _tape(listing: Listing, from_ns: int, to_ns: int, book: Book, rows: list[NDArray[np.int64]]) -> Tape:
    quotes, trades, depth, levels, liquidations, marks = rows
    of = listing.instrument
    return Tape(
        of,
        from_ns,
        to_ns,
        book,
        quotes=_table(tp.QUOTE, of, quotes, prices=(3, 5), quantities=(4, 6)),
        trades=_table(tp.TRADE, of, trades, prices=(3,), quantities=(4,)),
        depth=_table(tp.DEPTH, of, depth, prices=(), quantities=()),
        levels=_levels(of, levels),
        liquidations=_table(tp.LIQUIDATION, of, liquidations, prices=(3,), quantities=(4,)),
        marks=_table(tp.MARK, of, marks, prices=(2, 3), quantities=(6,), scaled=(4,)),
    )


def _levels(of: Instrument, rows: NDArray[np.int64]) -> tp.Rows:
    return _table(tp.LEVEL, of, rows, prices=(1,), quantities=(2,))


def _table(
    dtype: np.dtype[np.void],
    of: Instrument,
    rows: NDArray[np.int64],
    prices: tuple[int, ...],
    quantities: tuple[int, ...],
    scaled: tuple[int, ...] = (),
) -> tp.Rows:
    """Integer rows as a table: ticks and lots become the doubles nearest to their decimals (an exact division)."""
    table = np.empty(rows.shape[0], dtype)
    price_step, price_scale = round(of.tick * 10**of.price_decimals), 10.0**of.price_decimals
    qty_step, qty_scale = round(of.lot * 10**of.qty_decimals), 10.0**of.qty_decimals
    for column, name in enumerate(dtype.names or ()):
        values = rows[:, column]
        if column in prices:
            table[name] = values * price_step / price_scale
        elif column in quantities:
            table[name] = values * qty_step / qty_scale
        else:
            table[name] = values / vn.FUNDING_UNITS if column in scaled else values
    return table
