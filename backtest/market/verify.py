"""Does the simulated market hold what it promises? Stylised facts, the null, and the planted edge, over seeds.

    python -m backtest.market.verify --seeds 4 --hours 12 --edge 0      a null
    python -m backtest.market.verify --seeds 4 --hours 12 --edge 14     the default market

Everything is measured on published quotes and trades, on the receive clock, without the pipeline's own bars and labels:
a second opinion on those. Promises: method.md section 6.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from backtest.market.simulate import LAG_MS, Burst, Market
from backtest.market.tape import Rows
from backtest.market.truth import HOLD_S, reference_share
from core.config import DEFAULT_SYMBOLS, Sim
from core.units import BPS, NS_PER_S

LATENCY_NS: Final = 20_000_000
FEED_NS: Final = 5_000_000
TOP_FRAC: Final = 0.01
_WINDOWS_S: Final = (1, 2, 5, 15, 60, 300)

Floats = NDArray[np.float64]
Facts = dict[str, float]


class Series(NamedTuple):
    """What an instrument published: quotes and trades in order of receipt, mids, and the mid at whole seconds."""

    name: str
    quotes: Rows
    trades: Rows
    mid: Floats
    grid_ns: NDArray[np.int64]

    def mid_at(self, when_ns: NDArray[np.int64]) -> Floats:
        """The mid known at receive times."""
        place = np.searchsorted(self.quotes["recv_ns"], when_ns, side="right") - 1
        return np.asarray(self.mid[np.maximum(place, 0)])


def record(sim: Sim, seed: int, symbols: Sequence[str] = DEFAULT_SYMBOLS) -> tuple[list[Series], list[Burst], Facts]:
    """A market's quotes and trades, its bursts, and frames per second and instrument."""
    market = Market(sim, symbols, seed)
    parts: dict[str, list[tuple[Rows, Rows]]] = defaultdict(list)
    frames = 0
    for _ in range(max(1, round(sim.hours * 6))):
        for tape in market.chunk(10):
            parts[tape.instrument.name].append((tape.quotes, tape.trades))
            frames += tape.frames
    rate = frames / (len(parts) * max(1, round(sim.hours * 6)) * 600.0)
    return [_series(name, tapes) for name, tapes in parts.items()], market.truth(), {"frames_per_s": rate}


def _series(name: str, tapes: list[tuple[Rows, Rows]]) -> Series:
    quotes, trades = (np.concatenate([tape[which] for tape in tapes]) for which in (0, 1))
    first, last = int(quotes["recv_ns"][0]) // NS_PER_S + 1, int(quotes["recv_ns"][-1]) // NS_PER_S
    grid = np.arange(first, last, dtype=np.int64) * NS_PER_S
    return Series(name, quotes, trades, (quotes["bid_price"] + quotes["ask_price"]) / 2.0, grid)


def order_flow_imbalance(quotes: Rows) -> Floats:
    """Cont, Kukanov and Stoikov (2014), equation 2, per quote; 0 for the first."""
    bid, ask, bid_qty, ask_qty = (quotes[name] for name in ("bid_price", "ask_price", "bid_qty", "ask_qty"))
    flow = (bid[1:] >= bid[:-1]) * bid_qty[1:] - (bid[1:] <= bid[:-1]) * bid_qty[:-1]
    flow = flow - (ask[1:] <= ask[:-1]) * ask_qty[1:] + (ask[1:] >= ask[:-1]) * ask_qty[:-1]
    return np.concatenate(([0.0], flow))


def stylised_facts(series: Series) -> Facts:
    """Spread, volatility, tails, clustering, memory of signs, and how much of the price the OFI explains."""
    spread = (series.quotes["ask_price"] - series.quotes["bid_price"]) / series.mid * BPS
    mid, flow = series.mid_at(series.grid_ns), _summed(series.quotes["recv_ns"], series.grid_ns, series.quotes)
    one = np.diff(np.log(mid)) * BPS
    side = series.trades["taker_side"].astype(float)
    facts = {
        "spread_p5": float(np.quantile(spread, 0.05)),
        "spread_p50": float(np.quantile(spread, 0.5)),
        "spread_p95": float(np.quantile(spread, 0.95)),
        "sigma_1s": float(one.std()),
        "kurtosis_1s": float((one**4).mean() / one.var() ** 2),
        "kurtosis_60s": _kurtosis(np.diff(np.log(mid[::60]))),
        "return_acf_1s": _acf(one, 1),
        "trades_per_s": series.trades.size / series.grid_ns.size,
    }
    facts |= {f"abs_return_acf_{lag}s": _acf(np.abs(one), lag) for lag in (1, 10, 60, 300)}
    facts |= {f"sign_acf_{lag}": float((side[:-lag] * side[lag:]).mean()) for lag in (1, 10, 100)}
    for step in (1, 10, 60):
        move, imbalance = np.diff(np.log(mid[::step])), np.diff(flow[::step])
        facts[f"ofi_r2_{step}s"] = float(np.corrcoef(move, imbalance)[0, 1] ** 2)
    return facts


def predictability(series: Series, hold_s: int) -> list[tuple[int, float]]:
    """(second, gross bps) of the top 1 % of out-of-sample scores by absolute value, twice over: two models.

    The models (linear, boosted trees) see returns, OFI, signed and unsigned flow over six windows, imbalance and spread
    at whole seconds; they learn on the first half and are scored on the second. A null must give nothing to either.
    """
    features, mid = _features(series), series.mid_at(series.grid_ns)
    later = series.mid_at(series.grid_ns + LATENCY_NS + hold_s * NS_PER_S)
    rows = np.arange(max(_WINDOWS_S), mid.size - hold_s - 1)
    move = (later[rows] / mid[rows] - 1.0) * BPS
    half = rows.size // 2
    train, test = slice(0, half - hold_s), slice(half, None)
    gross: list[tuple[int, float]] = []
    for model in (Ridge(alpha=10.0), HistGradientBoostingRegressor(max_iter=80, random_state=0)):
        score = model.fit(features[rows[train]], move[train]).predict(features[rows[test]])
        top = np.argsort(-np.abs(score))[: max(1, int(TOP_FRAC * score.size))]
        seconds = (series.grid_ns[rows[test]][top] // NS_PER_S).tolist()
        gross += zip(seconds, (np.sign(score[top]) * move[test][top]).tolist(), strict=True)
    return gross


def maker_fills(series: Series, hold_s: int = 10, every: int = 3) -> tuple[list[float], list[float]]:
    """Buying at the touch, through rule, at every third second: (m_exit - m_fill, m_exit - price paid) per fill, bps.

    The first must be nought on average, because the mid is a martingale and a fill a stopping time; the second not
    positive: what a maker is paid does not make up for whom it trades with.
    """
    quotes, trades = series.quotes, series.trades
    decisions = series.grid_ns[60 : -hold_s - 60 : every]
    place = np.searchsorted(quotes["recv_ns"], decisions, side="right") - 1
    first_quote = np.searchsorted(quotes["recv_ns"], decisions + LATENCY_NS, side="right")
    last_quote = np.searchsorted(quotes["recv_ns"], decisions + LATENCY_NS + hold_s * NS_PER_S)
    first_trade = np.searchsorted(trades["recv_ns"], decisions + LATENCY_NS, side="right")
    last_trade = np.searchsorted(trades["recv_ns"], decisions + LATENCY_NS + hold_s * NS_PER_S)
    fills_ns, prices = [], []
    for row in range(decisions.size):
        price = quotes["bid_price"][place[row]]
        if quotes["ask_price"][first_quote[row] - 1] <= price:
            continue  # would cross on arrival: rejected
        crossed = quotes["ask_price"][first_quote[row] : last_quote[row]] <= price
        printed = trades["price"][first_trade[row] : last_trade[row]] < price
        times = [quotes["recv_ns"][first_quote[row] + crossed.argmax()]] if crossed.any() else []
        if printed.any():  # the mid of the fill is the one after the event: its quote follows the trade
            after = trades["recv_ns"][first_trade[row] + printed.argmax()]
            times.append(quotes["recv_ns"][min(np.searchsorted(quotes["recv_ns"], after), quotes.size - 1)])
        if times:
            fills_ns.append(min(times))
            prices.append(price)
    filled = np.array(fills_ns, np.int64)
    at_fill, at_exit = series.mid_at(filled), series.mid_at(filled + hold_s * NS_PER_S)
    paid = np.array(prices)
    return ((at_exit / at_fill - 1.0) * BPS).tolist(), ((at_exit / paid - 1.0) * BPS).tolist()


def reference_gross(series: Series, bursts: Sequence[Burst]) -> list[tuple[float, float]]:
    """(gross, expected gross) of the reference policy for each burst of the symbol, in bps, from mids."""
    venue, _, symbol = series.name.partition(":")
    mine = [burst for burst in bursts if burst.symbol == symbol]
    start = np.array([burst.start_ns for burst in mine], np.int64)
    side = np.array([burst.side for burst in mine])
    drift = np.array([burst.gross_bps for burst in mine])
    decision = -(-(start + FEED_NS + int(LAG_MS[venue] * 1e6)) // NS_PER_S) * NS_PER_S
    exit_ns = decision + LATENCY_NS + int(HOLD_S) * NS_PER_S
    inside = exit_ns < series.grid_ns[-1]
    gross = side * (series.mid_at(exit_ns) / series.mid_at(decision) - 1.0) * BPS
    return list(zip(gross[inside].tolist(), (drift[inside] * reference_share(HOLD_S)).tolist(), strict=True))


def _features(series: Series) -> Floats:
    quotes, trades, grid = series.quotes, series.trades, series.grid_ns
    mid = np.log(series.mid_at(grid)) * BPS
    signed = trades["taker_side"] * trades["qty"]
    flows = [_summed(quotes["recv_ns"], grid, quotes)]
    flows += [_at(trades["recv_ns"], grid, values) for values in (signed, trades["qty"], trades["taker_side"])]
    place = np.searchsorted(quotes["recv_ns"], grid, side="right") - 1
    bid, ask = quotes["bid_qty"][place], quotes["ask_qty"][place]
    spread = (quotes["ask_price"][place] - quotes["bid_price"][place]) / series.mid[place] * BPS
    columns = [(bid - ask) / (bid + ask), spread]
    for window in _WINDOWS_S:
        columns += [_change(values, window) for values in (mid, *flows)]
    table = np.column_stack(columns)
    return np.asarray((table - table.mean(axis=0)) / np.maximum(table.std(axis=0), 1e-12))


def _summed(times_ns: NDArray[np.int64], grid_ns: NDArray[np.int64], quotes: Rows) -> Floats:
    return _at(times_ns, grid_ns, order_flow_imbalance(quotes))


def _at(times_ns: NDArray[np.int64], grid_ns: NDArray[np.int64], values: Any) -> Floats:
    """The running sum of `values` at the points of a grid."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    return np.asarray(sums[np.searchsorted(times_ns, grid_ns, side="right")])


def _change(values: Floats, lag: int) -> Floats:
    return np.concatenate((np.zeros(lag), values[lag:] - values[:-lag]))


def _acf(values: Floats, lag: int) -> float:
    return float(np.corrcoef(values[:-lag], values[lag:])[0, 1])


def _kurtosis(values: Floats) -> float:
    return float(((values - values.mean()) ** 4).mean() / values.var() ** 2)


def main(seeds: int = 4, hours: float = 12.0, edge: float = 0.0, first_seed: int = 1, models: bool = True) -> None:
    """Measure markets and print means over seeds with standard errors. `--no-models`: without the slow part."""
    facts: dict[str, list[float]] = defaultdict(list)
    tops: dict[int, list[tuple[int, float]]] = {1: [], 10: []}
    exits: list[float] = []
    earned: list[float] = []
    oracle: list[tuple[float, float]] = []
    for seed in range(first_seed, first_seed + seeds):
        series, bursts, totals = record(Sim(hours=hours, edge=edge), seed)
        facts["frames_per_s"].append(totals["frames_per_s"])
        per_burst = [reference_gross(one, bursts) for one in series]
        oracle += [pair for pairs in per_burst for pair in pairs]
        for one in series:
            for name, value in stylised_facts(one).items():
                facts[name].append(value)
            for hold_s, gross in tops.items() if models else ():
                gross += [(seed * 10**10 + second, value) for second, value in predictability(one, hold_s)]
            fill_to_exit, net = maker_fills(one)
            exits += fill_to_exit
            earned += net
    print(f"{seeds} seeds x {hours:g} h, edge {edge:g} bps, 2 symbols x 2 venues")
    for name, values in facts.items():
        print(f"  {name:<20} {np.mean(values):9.3f}   [{min(values):.3f}, {max(values):.3f}] over instruments")
    for hold_s, gross in tops.items() if models else ():
        _say_blocks(f"top 1 % gross, T={hold_s} s", gross, "bps; a null: < 0.3")
    _say("m_exit - m_fill", exits, "bps; nought within 3 se")
    _say("m_exit - price paid", earned, "bps; before fees, not positive")
    gap = [got - expected for got, expected in oracle]
    _say("oracle gross", [got for got, _ in oracle], f"bps; expected {np.mean([want for _, want in oracle]):.3f}")
    _say("oracle gap", gap, "bps; nought within 2 se (venues share bursts: se is up to 1.4 times this)")


def _say(what: str, values: Sequence[float], unit: str) -> None:
    error = float(np.std(values)) / math.sqrt(max(len(values), 1))
    print(f"  {what:<24} {np.mean(values):8.4f} ± {error:.4f} (se, n {len(values)}) {unit}")


def _say_blocks(what: str, values: Sequence[tuple[int, float]], unit: str, block_s: int = 600) -> None:
    """As `_say`, with the error of a ratio of sums over blocks of time: scores cluster, and venues move together."""
    block = np.array([second // block_s for second, _ in values])
    _, place = np.unique(block, return_inverse=True)
    gross = np.array([value for _, value in values])
    gap = np.bincount(place, gross - gross.mean())
    error = math.sqrt(float((gap**2).sum())) / gross.size
    print(f"  {what:<24} {gross.mean():8.4f} ± {error:.4f} (block se, n {gross.size}) {unit}")


if __name__ == "__main__":
    typer.run(main)
