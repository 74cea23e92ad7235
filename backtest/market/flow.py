"""Order flow and the efficient price of one symbol: a martingale by construction, plus planted drift where asked.

Events come as a Poisson process of known intensity. Each may be a trade, news (a revision without a trade) or a change
of size; it moves the efficient price up by `up` or down by `down` bps, and the odds are what makes it fair:

    P(up) = down / (up + down)                                                                             (1)

so that the expected move is nought given everything that came before, whatever made `up` and `down` unequal. Two
things do. Signs of trades have a long memory: with rho = E[sign | past] (herds follow the
average sign of the last trades; large orders are worked in slices, Lillo, Mike and Farmer 2005), a trade of impact z
moves by z(1 - rho) or z(1 + rho), the impact of its surprise alone, and (1) gives back P(buy) = (1 + rho)/2. And
liquidations: a move that crosses the liquidation prices of leveraged positions is made larger
by their forced orders, which may cross more; the move with the fuller side of positions is the less likely one.

Bursts (Poisson, `burst_per_hour`) are a cluster of one-sided trades, at first `cluster_rate` a second, dying out with
`cluster_decay_s`. Whoever knows of the burst expects them, so they move the price little. A planted burst also fills
`reservoir` with side * u * g bps, u ~ U(.7, 1.3). Each event pays out reservoir / (tau * intensity): the events'
intensity is known, so the expected price follows side * u * g * (1 - exp(-t / tau)) exactly, at any time and not at
events alone, though the price moves only with events.

Volatility clusters (two log-normal Ornstein-Uhlenbeck activities and a daily season drive the intensity) and has heavy
tails (impacts are log-normal mixtures), neither of which bears on the sign.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backtest.market.rng import exponential, normal, uniform
from core.kernels import njit

NS: Final = 1_000_000_000
DAY_S: Final = 86_400
BACKGROUND: Final = -1
TRADE: Final = 0
NEWS: Final = 1
SIZE: Final = 2
CLUSTER: Final = 3
BURST: Final = 4

# Columns of the events: integers, then floats.
E_NS: Final = 0
E_KIND: Final = 1
E_SIDE: Final = 2
E_INTS: Final = 3
E_PRICE: Final = 0
E_HALF_SPREAD_BPS: Final = 1
E_RHO: Final = 2
E_SIZE: Final = 3
E_LIQUIDATED: Final = 4
E_PREMIUM_BPS: Final = 5
E_OPEN_INTEREST: Final = 6
E_GROSS_BPS: Final = 7
E_FLOATS: Final = 8

# Fields of `FlowState.clock` and `FlowState.level`.
NOW_NS: Final = 0
SECOND: Final = 1
BURST_SIDE: Final = 2
PRICE: Final = 0
FAST: Final = 1
SLOW: Final = 2
MEMORY: Final = 3
METAORDERS: Final = 4  # two of them
CLUSTER_RATE: Final = 6
RESERVOIR_BPS: Final = 7
SPREAD: Final = 8
PREMIUM_BPS: Final = 9
RATE: Final = 10
OPEN_INTEREST: Final = 11
POSITION_BINS: Final = 4096  # of 1 bp of log price each: positions within 20 % of the price

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Flow(NamedTuple):
    """The constants of a symbol's flow. Rates are per second, `_bps` are per event."""

    event_rate: float = 5.4
    trade_share: float = 0.50
    news_share: float = 0.30
    trade_impact_bps: float = 0.0
    news_bps: float = 0.0
    herding: float = 0.25
    metaorder_std: tuple[float, float] = (0.10, 0.20)
    max_rho: float = 0.85
    season: float = 0.2
    activity_std: float = 0.35
    half_spread_bps: float = 0.1
    burst_rate: float = 20.0 / 3600.0
    # 35 trades within a fifth of a second: plain to see at the next decision and gone at the one after, so that a rule
    # can tell a fresh burst from a spent one. (At 50 a second dying out in 0.5 s a third of the bursts stood out.)
    cluster_rate: float = 700.0
    cluster_decay_s: float = 0.05
    cluster_rho: float = 0.95
    drift_bps: float = 0.0
    drift_decay_s: float = 3.0
    cascade_bps: float = 100.0
    cascade_limit_bps: float = 25.0
    mean_open_interest: float = 10_000.0


class FlowState(NamedTuple):
    """All that a symbol's flow remembers: `clock` (3,) int64, `level` (12,), positions by liquidation price."""

    clock: Ints
    level: Floats
    longs: Floats
    shorts: Floats
    random: NDArray[np.uint64]


_MEMORY_SHARE = 1.0 / 4.0  # of the last trade in the average sign that herds follow
_METAORDER_S = (15.0, 300.0)  # how long large orders are worked, fast and slow
_SIZE_POWER = 0.12  # the impact of a trade grows with the log of its size by this much: concave
_NEWS_TAIL = 0.35
_FAST_S, _SLOW_S = 60.0, 1200.0
_TURNOVER_S = 3.0 * 3600.0  # positions are closed by their owners at this mean age
_PREMIUM_S, _PREMIUM_BPS = 3600.0, 1.0
_HOLDER_TAIL = 2.0
_NEAREST_BPS, _MEDIAN_BPS, _FARTHEST_BPS = 15, 90, 1900  # from a new position to its liquidation: leverage 100 and less


def new_state(flow: Flow, price: float, start_ns: int, random: NDArray[np.uint64]) -> FlowState:
    """A flow at its start: calm, positions in place on both sides of `price` with the mean open interest."""
    level = np.zeros(12)
    level[PRICE], level[OPEN_INTEREST] = price, flow.mean_open_interest
    longs, shorts = np.zeros(POSITION_BINS), np.zeros(POSITION_BINS)
    centre = math.floor(1e4 * math.log(price))
    distance = np.arange(1, _FARTHEST_BPS)
    held = np.exp(-0.5 * np.log(distance / (2.0 * _MEDIAN_BPS)) ** 2) * (distance > _NEAREST_BPS)
    held *= flow.mean_open_interest / held.sum()
    longs[(centre - distance) % POSITION_BINS] = held
    shorts[(centre + distance) % POSITION_BINS] = held
    clock = np.array([start_ns, start_ns // NS - 1, 1], np.int64)
    return FlowState(clock, level, longs, shorts, random)


@njit(cache=True, nogil=True)
def advance(flow: Flow, state: FlowState, until_ns: int, ints: Ints, floats: Floats) -> int:
    """Write the events before `until_ns` (a whole second) and return how many; stop early where the buffers are full.

    ints: (n, 3) time, kind, side; floats: (n, 8) efficient price after the event, half-spread, rho, size (standard
    normal), liquidated base quantity (signed: + longs), premium, open interest, gross bps of the burst. The state
    moves on, so that calling again continues; the events do not depend on the lengths of the calls or the buffers.
    """
    clock, level, random = state.clock, state.level, state.random
    count = 0
    while count < ints.shape[0]:
        if clock[NOW_NS] // NS > clock[SECOND]:
            if clock[NOW_NS] >= until_ns:
                break
            clock[SECOND] = clock[NOW_NS] // NS
            _each_second(flow, state)
        wait = exponential(random) / level[RATE]
        kind = BACKGROUND
        burst = exponential(random) / flow.burst_rate
        if burst < wait:
            wait, kind = burst, BURST
        mass = level[CLUSTER_RATE] * flow.cluster_decay_s
        cluster = exponential(random)
        if cluster < mass:
            cluster_wait = -flow.cluster_decay_s * math.log(1.0 - cluster / mass)
            if cluster_wait < wait:
                wait, kind = cluster_wait, CLUSTER
        left_ns = (clock[SECOND] + 1) * NS - clock[NOW_NS]
        step_ns = min(int(wait * 1e9) + 1, left_ns) if wait < 2.0 else left_ns
        level[CLUSTER_RATE] *= math.exp(-1e-9 * step_ns / flow.cluster_decay_s)
        clock[NOW_NS] += step_ns
        if step_ns < left_ns:
            _event(flow, state, kind, ints[count], floats[count])
            count += 1
    return count


@njit(cache=True, nogil=True)
def _each_second(flow: Flow, state: FlowState) -> None:
    """Move what changes slowly, and set the intensity of the second."""
    level, random = state.level, state.random
    fast, slow = math.exp(-1.0 / _FAST_S), math.exp(-1.0 / _SLOW_S)
    level[FAST] = fast * level[FAST] + flow.activity_std * math.sqrt(1.0 - fast * fast) * normal(random)
    level[SLOW] = slow * level[SLOW] + flow.activity_std * math.sqrt(1.0 - slow * slow) * normal(random)
    hour_angle = 2.0 * math.pi * (state.clock[SECOND] % DAY_S / DAY_S - 15.0 / 24.0)
    for which in range(2):
        stay = math.exp(-1.0 / _METAORDER_S[which])
        moved = flow.metaorder_std[which] * math.sqrt(1.0 - stay * stay) * normal(random)
        level[METAORDERS + which] = stay * level[METAORDERS + which] + moved
    season = 1.0 + flow.season * math.cos(hour_angle)
    activity = math.exp(level[FAST] + level[SLOW] - flow.activity_std * flow.activity_std)
    level[RATE] = flow.event_rate * season * min(max(activity, 0.25), 6.0)
    keep = math.exp(-1.0 / _PREMIUM_S)
    level[PREMIUM_BPS] = keep * level[PREMIUM_BPS] + _PREMIUM_BPS * math.sqrt(1.0 - keep * keep) * normal(random)
    if state.clock[SECOND] % 60 == 0:
        kept = math.exp(-60.0 / _TURNOVER_S)
        for bin_ in range(POSITION_BINS):  # a loop: array expressions take seconds to compile
            state.longs[bin_] *= kept
            state.shorts[bin_] *= kept
        level[OPEN_INTEREST] *= kept


@njit(cache=True, nogil=True)
def _event(flow: Flow, state: FlowState, kind: int, ints: Ints, floats: Floats) -> None:
    """One event: its kind, its fair odds (1), its move, what it pays out of the reservoir, the positions it opens."""
    clock, level, random = state.clock, state.level, state.random
    if kind == BACKGROUND:
        pick = uniform(random)
        kind = TRADE if pick < flow.trade_share else NEWS if pick < flow.trade_share + flow.news_share else SIZE
    size = normal(random)
    impact = _impact(flow, kind, size, random)
    rho = _expected_sign(flow, level) if kind == TRADE else flow.cluster_rho * clock[BURST_SIDE] * (kind == CLUSTER)
    up = _cascade(flow, state, impact * (1.0 - rho), 1)
    down = _cascade(flow, state, impact * (1.0 + rho), -1)
    side = 1 if uniform(random) * (up + down) < down else -1
    if impact == 0.0:
        side = 1 if uniform(random) < 0.5 else -1
    before = 1e4 * math.log(level[PRICE])
    level[PRICE] *= 1.0 + 1e-4 * ((up if side == 1 else -down) + _pay_out(flow, level))
    floats[E_LIQUIDATED] = _liquidate(state, before, 1e4 * math.log(level[PRICE]))
    floats[E_GROSS_BPS] = _start_burst(flow, state, side) if kind == BURST else 0.0
    if kind == TRADE:
        level[MEMORY] += _MEMORY_SHARE * (side - level[MEMORY])
        _open_positions(flow, state)
    level[SPREAD] = 0.9 * level[SPREAD] + 0.13 * normal(random)
    wider = math.exp(level[SPREAD]) * (level[RATE] / flow.event_rate) ** 0.25
    ints[E_NS], ints[E_KIND], ints[E_SIDE] = clock[NOW_NS], kind, side
    floats[E_PRICE], floats[E_RHO], floats[E_SIZE] = level[PRICE], rho, size
    floats[E_HALF_SPREAD_BPS] = flow.half_spread_bps * min(max(wider, 0.3), 3.0)
    floats[E_PREMIUM_BPS], floats[E_OPEN_INTEREST] = level[PREMIUM_BPS], level[OPEN_INTEREST]


@njit(cache=True, nogil=True)
def _impact(flow: Flow, kind: int, size: float, random: NDArray[np.uint64]) -> float:
    """What the event is worth in bps before its surprise is taken: root mean square `news_bps`, `trade_impact_bps`."""
    if kind == SIZE:
        return 0.0
    if kind == NEWS:
        return abs(float(normal(random))) * flow.news_bps * math.exp(_NEWS_TAIL * size - _NEWS_TAIL * _NEWS_TAIL)
    return flow.trade_impact_bps * math.exp(_SIZE_POWER * size - _SIZE_POWER * _SIZE_POWER)


@njit(cache=True, nogil=True)
def _expected_sign(flow: Flow, level: Floats) -> float:
    """rho = E[sign of the next trade | past]."""
    rho = flow.herding * level[MEMORY] + level[METAORDERS] + level[METAORDERS + 1]
    return float(min(max(rho, -flow.max_rho), flow.max_rho))


@njit(cache=True, nogil=True)
def _cascade(flow: Flow, state: FlowState, move_bps: float, side: int) -> float:
    """A move made larger by the forced orders of the positions it crosses, until it crosses no more.

    The impact is linear in the share of the open interest that is hit, so a stretch of more than
    1 / cascade_bps of it per bp carries itself; `cascade_limit_bps` ends that.
    """
    positions = state.shorts if side == 1 else state.longs
    start = 1e4 * math.log(state.level[PRICE])
    bin_, hit, total = math.floor(start), 0.0, move_bps
    while abs(math.floor(start + side * total) - math.floor(start)) > abs(bin_ - math.floor(start)):
        hit += positions[(bin_ + 1 if side == 1 else bin_) % POSITION_BINS]
        bin_ += side
        total = move_bps + min(flow.cascade_bps * hit / state.level[OPEN_INTEREST], flow.cascade_limit_bps)
    return total


@njit(cache=True, nogil=True)
def _liquidate(state: FlowState, before: float, after: float) -> float:
    """Close the positions crossed between two log prices (bps). Returns their quantity, + longs, - shorts.

    Each finds a taker: the position passes to a new holder with a new distance to liquidation, so that longs, shorts
    and open interest stay equal.
    """
    first, last = math.floor(before), math.floor(after)
    side = 1 if last < first else -1
    positions = state.longs if side == 1 else state.shorts
    hit = 0.0
    for bin_ in range(min(first, last) + 1, max(first, last) + 1):
        hit += positions[bin_ % POSITION_BINS]
        positions[bin_ % POSITION_BINS] = 0.0
    if hit > 0.0:
        positions[(last - side * _distance(state.random)) % POSITION_BINS] += hit
    return side * hit


@njit(cache=True, nogil=True)
def _open_positions(flow: Flow, state: FlowState) -> None:
    """A trade opens a long and a short; sizes are heavy-tailed, and owners' closings (each minute) balance them."""
    level = state.level
    mean = flow.mean_open_interest / (_TURNOVER_S * flow.event_rate * flow.trade_share)
    quantity = mean * math.exp(_HOLDER_TAIL * normal(state.random) - 0.5 * _HOLDER_TAIL * _HOLDER_TAIL)
    here = math.floor(1e4 * math.log(level[PRICE]))
    state.longs[(here - _distance(state.random)) % POSITION_BINS] += quantity
    state.shorts[(here + _distance(state.random)) % POSITION_BINS] += quantity
    level[OPEN_INTEREST] += quantity


@njit(cache=True, nogil=True)
def _distance(random: NDArray[np.uint64]) -> int:
    """Bins from a new position to its liquidation price."""
    return min(_NEAREST_BPS + int(_MEDIAN_BPS * math.exp(0.8 * normal(random))), _FARTHEST_BPS)


@njit(cache=True, nogil=True)
def _pay_out(flow: Flow, level: Floats) -> float:
    """The part of the reservoir due with one event: 1 / (tau * intensity), so that its mean decays as exp(-t / tau)."""
    intensity = level[RATE] + level[CLUSTER_RATE] + flow.burst_rate
    paid = level[RESERVOIR_BPS] * min(1.0 / (flow.drift_decay_s * intensity), 1.0)
    level[RESERVOIR_BPS] -= paid
    return float(paid)


@njit(cache=True, nogil=True)
def _start_burst(flow: Flow, state: FlowState, side: int) -> float:
    """Start a burst: the cluster of trades on `side` and the planted drift. Returns the drift to come, signed, bps."""
    gross_bps: float = side * flow.drift_bps * (0.7 + 0.6 * uniform(state.random))
    state.level[RESERVOIR_BPS] += gross_bps
    state.level[CLUSTER_RATE] = flow.cluster_rate
    state.clock[BURST_SIDE] = side
    return gross_bps
