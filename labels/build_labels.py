"""Stage `labels`: events and the decision grid of the bars to what each cell would have earned.

    python run_pipeline.py labels
    python labels/build_labels.py --set labels.horizons_s="[10, 60]"

Decisions come from the bars' clock, not from the features, so that labels do not change with the feature set.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from core import store
from core.cells import SIDES, THROUGH, MakerCell, TakerCell, delta_label
from core.cli import stage_main
from core.config import Config
from core.config import Labels as LabelSettings
from core.errors import ConfigError
from core.labelled import inputs_of
from core.run_record import Stage
from core.schema import BARS, GAPS, INVERSE, LABELS, MARK_PRICES, TOP_OF_BOOK, TRADES
from core.store import Partition
from core.units import NS_PER_MS, NS_PER_S, parse_duration_ns, seconds_label
from labels.fees import Costs, Rules, rules_of
from labels.grid import Decisions, Grid, Terms, label
from labels.tally import CellSums, Tally, rule_names, tally, total
from labels.venue_clock import UNKNOWN, skew_ns
from labels.venue_events import BREAKS, VenueDay, load, neighbours, next_start, within

READS, WRITES = (BARS, TOP_OF_BOOK, TRADES, MARK_PRICES, GAPS), (LABELS,)

VERSION: Final = 3
"""Raise it when the same inputs give other labels."""
WORKERS: Final = 2
NO_BOOK: Final = "no book"
_MANY_REJECTED: Final = 0.05  # of orders: a fill rate that is low for that must not look like an error

Ints = NDArray[np.int64]


def run(cfg: Config, stage: Stage) -> None:
    """Bars and events to labels, one symbol-day at a time; only those whose inputs changed."""
    bars = _labelled_symbols(cfg, stage, store.require(cfg.root, BARS, cfg.symbols or (), cfg.bars))
    keys = {part: _inputs_hash(cfg, part) for part in bars}
    stale = [part for part, key in keys.items() if _is_stale(cfg.root, part, key)]
    if stage.reuse(store.hash_of(*keys.values()), whole=not stale):
        return
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in stage.track(pool.map(lambda part: _build(cfg, part, keys[part]), stale), "labels", len(stale)):
            pass
    summed = total(_read_tally(cfg.root, part) for part in bars)
    stage.rows_in, stage.rows_out = summed.decisions, summed.rows
    stage.put("labels", [cell.row() for cell in summed.cells])
    stage.say(f"labels: {summed.rows:,} of {summed.decisions:,} decisions, {len(summed.cells)} cells each")
    for line in _drop_lines(summed):
        stage.say(line)
    for line in cell_lines(summed.cells):
        stage.say(line)


def decision_times(bars: pl.DataFrame, clock: str, step_ns: int) -> Ints:
    """Closes of bars with a book, on the decision grid (every close on volume bars); sorted, each once."""
    closes = bars.filter(pl.col("bid_price").is_finite())["close_ns"].unique().sort().to_numpy()
    return closes[closes % step_ns == 0] if clock.startswith("time_") else closes


def sound_decisions(times_ns: Ints, day: VenueDay) -> tuple[Decisions, dict[str, int]]:
    """Decisions that can be labelled against a known, fresh, uncrossed book outside gaps; counts of the others."""
    skews = skew_ns(day.clocks, times_ns)
    last = np.searchsorted(day.books.recv_ns, times_ns, side="left") - 1
    reasons = {NO_BOOK: (last < 0) | (skews == UNKNOWN)}
    reasons |= {kind: within(day.breaks[k], times_ns) for k, kind in enumerate(BREAKS)}
    sound, dropped = np.ones(times_ns.size, np.bool_), {}
    for reason, hit in reasons.items():
        dropped[reason] = int(np.count_nonzero(sound & hit))
        sound &= ~hit
    starts = np.stack([next_start(breaks, times_ns[sound]) for breaks in day.breaks])
    books, at = day.books, last[sound]
    return (
        Decisions(
            times_ns[sound], skews[sound], books.bid[at], books.ask[at], starts.min(axis=0), starts.argmin(axis=0)
        ),
        dropped,
    )


def grid_terms(settings: LabelSettings, costs: Costs, tick: float, covered_ns: int) -> Terms:
    """The grid's terms from the `labels` section: offsets, gates and holds sorted, each once."""
    holds_ns = np.unique(np.array([round(horizon_s * NS_PER_S) for horizon_s in settings.horizons_s], np.int64))
    return Terms(
        deltas_bps=np.unique(np.array(settings.deltas_bps, np.float64)),
        gates_usd=np.unique(np.array(settings.gates_usd, np.float64)),
        taker_holds_ns=holds_ns,
        maker_holds_ns=holds_ns[holds_ns >= settings.min_maker_horizon_s * NS_PER_S],
        rest_ns=round(settings.rest_s * NS_PER_S),
        gate_rest_ns=round(settings.fill_window_s * NS_PER_S),
        entry_latency_ns=round(settings.entry_latency_ms * NS_PER_MS),
        exit_latency_ns=round(settings.exit_latency_ms * NS_PER_MS),
        dead_band_bps=settings.dead_band_bps,
        tick=tick,
        costs=costs,
        covered_ns=covered_ns,
    )


def costs_of(cfg: Config, venue: str) -> Costs:
    """Fees of a venue and slippage. Raises ConfigError for a venue without fees."""
    if venue not in cfg.fees:
        raise ConfigError(f"no fees for venue {venue!r}: set fees.{venue}.maker_bps and .taker_bps - at `$.fees`")
    fee = cfg.fees[venue]
    return Costs(fee.maker_bps, fee.taker_bps, cfg.labels.slippage_bps)


def reach_ns(settings: LabelSettings) -> int:
    """How long after a decision its labels may still look: rest, longest hold, latencies."""
    rest_s = max(settings.rest_s, settings.fill_window_s)
    latency_ms = 2 * settings.entry_latency_ms + settings.exit_latency_ms
    return round((rest_s + max(settings.horizons_s, default=0.0)) * NS_PER_S + latency_ms * NS_PER_MS)


def rules_on(part: Partition, day: VenueDay) -> Rules:
    """Tick, lot and least notional of a symbol-day."""
    prices = pl.concat([pl.Series(values) for values in (day.quotes.bid, day.quotes.ask, day.trades.price)])
    sizes = pl.Series(day.trades.qty).unique().to_numpy()
    return rules_of(part.exchange, part.symbol, part.date, prices.unique().to_numpy(), sizes)


def to_frame(decisions: Decisions, grid: Grid, terms: Terms) -> pl.DataFrame:
    """Rows of the `labels` table: one per decision with at least one label, columns as in core/cells.py."""
    labelled = (grid.taker.end_ns > 0).any(axis=0)
    labelled |= (grid.maker.end_ns > 0).any(axis=(0, 1, 2, 3))
    columns = {"decision_ns": decisions.t_ns} | _taker_columns(grid, terms) | _maker_columns(grid, terms)
    return pl.DataFrame({name: _series(name, values[labelled]) for name, values in columns.items()})


def _taker_columns(grid: Grid, terms: Terms) -> dict[str, NDArray[np.generic]]:
    columns: dict[str, NDArray[np.generic]] = {}
    for h, hold_ns in enumerate(terms.taker_holds_ns):
        cell = TakerCell(hold_ns / NS_PER_S)
        columns[cell.ret_bps] = grid.taker.ret_bps[h]
        columns[cell.direction] = grid.taker.direction[h]
        for s, side in enumerate(SIDES):
            columns[cell.net_bps(side)] = grid.taker.net_bps[s, h]
        columns[cell.end_ns] = grid.taker.end_ns[h]
    return columns


def _maker_columns(grid: Grid, terms: Terms) -> dict[str, NDArray[np.generic]]:
    columns: dict[str, NDArray[np.generic]] = {}
    for s, side in enumerate(SIDES):
        for d, delta_bps in enumerate(terms.deltas_bps):
            for r, rule in enumerate(rule_names(terms)):
                for h, hold_ns in enumerate(terms.maker_holds_ns):
                    cell = MakerCell(float(delta_bps), hold_ns / NS_PER_S, rule)
                    columns[cell.limit(side)] = grid.maker.limit[s, d]
                    columns[cell.fill_ns(side)] = grid.maker.fill_ns[s, d, r]
                    columns[cell.gross_bps(side)] = grid.maker.gross_bps[s, d, r, h]
                    columns[cell.net_bps(side)] = grid.maker.net_bps[s, d, r, h]
                    columns[cell.end_ns(side)] = grid.maker.end_ns[s, d, r, h]
    return columns


def _series(name: str, values: NDArray[np.generic]) -> pl.Series:
    """Null for what is unknown: NaN, and time 0."""
    series = pl.Series(name, np.ascontiguousarray(values))
    if series.dtype.is_float():
        return series.fill_nan(None)
    return series.set(series == 0, None) if series.dtype == pl.Int64 else series


def _build(cfg: Config, bars: Partition, key: str) -> None:
    part = bars.of(LABELS)
    frame, counts = _label_day(cfg, bars)
    store.write_atomic(_tally_path(cfg.root, part), msgspec.json.encode(counts))
    store.write(cfg.root, part, frame, key)


def _label_day(cfg: Config, bars: Partition) -> tuple[pl.DataFrame, Tally]:
    closes = store.read(cfg.root, bars, ["close_ns", "bid_price"])
    times_ns = decision_times(closes, cfg.bars, parse_duration_ns(cfg.decision))
    day = load(cfg.root, bars, reach_ns(cfg.labels), round(cfg.labels.stale_book_s * NS_PER_S))
    decisions, dropped = sound_decisions(times_ns, day)
    tick = rules_on(bars, day).tick if decisions.t_ns.size else 1.0
    terms = grid_terms(cfg.labels, costs_of(cfg, bars.exchange), tick, day.covered_ns)
    grid = label(decisions, day.quotes, day.trades, day.funding, terms)
    frame = to_frame(decisions, grid, terms)
    return frame, tally(grid, terms, times_ns.size, frame.height, dropped)


def _labelled_symbols(cfg: Config, stage: Stage, bars: list[Partition]) -> list[Partition]:
    for name in sorted({part.instrument for part in bars if part.exchange in INVERSE}):
        stage.say(f"labels: {name} is captured only (its quantities are contracts): skipped")
    return [part for part in bars if part.exchange not in INVERSE]


def _inputs_hash(cfg: Config, bars: Partition) -> str:
    events = [each for table in READS[1:] for each in neighbours(cfg.root, bars, table)]
    costs_of(cfg, bars.exchange)  # a venue without fees fails before any work
    seen = store.hash_of(store.fingerprint(cfg.root, [bars, *events]), VERSION)
    return inputs_of(cfg, bars.exchange, seen)


def _is_stale(root: Path, bars: Partition, key: str) -> bool:
    part = bars.of(LABELS)
    return store.built_from(root, part) != key or not _tally_path(root, part).exists()


def _tally_path(root: Path, part: Partition) -> Path:
    return root / "state" / "labels" / part.exchange / part.symbol / f"{part.date}.json"


def _read_tally(root: Path, bars: Partition) -> Tally:
    return msgspec.json.decode(_tally_path(root, bars.of(LABELS)).read_bytes(), type=Tally)


def _drop_lines(summed: Tally) -> list[str]:
    lines = [f"labels: dropped {count:,} decisions: {reason}" for reason, count in summed.dropped.items()]
    for hold, counts in sorted(summed.unlabelled.items(), key=lambda item: float(item[0])):
        by_reason = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
        if by_reason:
            lines.append(f"labels: T={hold} s, decision x cells not labelled: {by_reason}")
    labelled = {cell.horizon_s for cell in summed.cells if cell.n}
    for horizon_s in sorted({cell.horizon_s for cell in summed.cells} - labelled):
        cells = sum(cell.horizon_s == horizon_s for cell in summed.cells)
        lines.append(f"labels: T={seconds_label(horizon_s)} s fits nowhere in the data: {cells} cells are empty")
    if not summed.rows:
        lines.append("labels: no decision can be labelled: the data end before the shortest horizon, capture more")
    return lines


def cell_lines(cells: list[CellSums]) -> list[str]:
    """Unconditional net bps per order: a taker line, and a line per offset of the makers under `through`."""
    groups = {"taker": [cell for cell in cells if cell.kind == "taker"]}
    for cell in cells:
        if cell.rule == THROUGH:
            groups.setdefault(f"maker {delta_label(cell.delta_bps or 0.0)}", []).append(cell)
    return [_cell_line(name, group) for name, group in groups.items() if any(cell.n + cell.merged for cell in group)]


def _cell_line(name: str, group: list[CellSums]) -> str:
    orders, fills = sum(cell.n for cell in group), sum(cell.fills for cell in group)
    if not orders:
        return f"  {name}: at this tick the price of the cell before it, counted there"
    by_hold: dict[float, list[CellSums]] = {}
    for cell in group:
        by_hold.setdefault(cell.horizon_s, []).append(cell)
    counts = {hold_s: n for hold_s, pair in by_hold.items() if (n := sum(c.n for c in pair))}
    nets = [
        f"T={seconds_label(hold_s)} {sum(c.net_bps for c in by_hold[hold_s]) / n:.2f}" for hold_s, n in counts.items()
    ]
    most, least = max(counts.values()), min(counts.values())
    n_orders = f"n={most:,}" + (f" to {least:,}" if least < most else "")  # less where the data end before T does
    rejected = sum(cell.rejected for cell in group) / orders
    crossed = f" | rejected={rejected:.3f}, as post-only would cross at arrival" if rejected > _MANY_REJECTED else ""
    figures = f"fill_rate={fills / orders:.3f} | net bps per order {', '.join(nets)} | {n_orders}"
    return f"  {name}, any decision: {figures}{crossed}"


if __name__ == "__main__":
    stage_main("labels", run)
