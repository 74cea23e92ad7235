"""Feature and label tables of a small made-up market, written through the store: what training reads, and no market.

Second by second, per symbol: the mid is a random walk of 1.5 bps plus planted bursts, each adding u·g·(1 - exp(-a/3))
bps at age a, and each seen by the flow features while it is young. `edge_bps` is the gross of a taker who enters one
second late and holds 10 s; 0 is a null. The second venue of a symbol shares its mid and bursts but not the noise of
its features.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view

from core import schema, store
from core.cells import SIDES, THROUGH, TOUCH, MakerCell, TakerCell, gate_rule
from core.config import Config
from core.labelled import inputs_of
from core.store import Partition
from core.units import NS_PER_S
from research import feature_settings

DATE = "2026-01-05"
START_S = 6 * 3600
FLOW = ("ofi_1", "ofi_5s", "flow_5s")
DECAY_S, LATE_S, HELD_S = 3.0, 1.0, 10.0


def write_market(
    cfg: Config, hours: float, edge_bps: float, seed: int, names: Sequence[str], bursts_per_hour: float = 20.0
) -> None:
    """Tables `features` (columns `names`, the first three of them flow) and `labels` of cfg.symbols."""
    rng, n = np.random.default_rng(seed), round(hours * 3600)
    assert cfg.symbols
    for symbol in sorted({name.partition(":")[2] for name in cfg.symbols}):
        path_bps, signal = _market(rng, n, edge_bps, bursts_per_hour)
        for name in cfg.symbols:
            venue, _, own = name.partition(":")
            if own == symbol:
                part = Partition("features", venue, symbol, DATE, cfg.bars)
                built = feature_settings.inputs_of(feature_settings.settings_of(cfg), rows="made up")
                store.write(cfg.root, part, _features(rng, signal, names), built)
                labels = _labels(cfg, venue, path_bps, n)
                store.write(cfg.root, part.of(schema.LABELS), labels, inputs_of(cfg, venue, "made up"))


def _market(rng: np.random.Generator, n: int, edge_bps: float, per_hour: float) -> tuple[np.ndarray, np.ndarray]:
    """Mid in bps at each second and 120 s beyond, and signals (n, 3) of bursts aged 1, 1 to 3, and 2 to 3 s."""
    seconds = n + 120
    path = np.cumsum(rng.normal(0.0, 1.5, seconds))
    signal = np.zeros((seconds, 3))
    size = edge_bps / (np.exp(-LATE_S / DECAY_S) * (1.0 - np.exp(-HELD_S / DECAY_S)))
    for start in rng.integers(0, seconds, rng.poisson(per_hour * n / 3600)):
        side, age = rng.choice([-1.0, 1.0]), np.arange(seconds - start)
        path[start:] += side * rng.uniform(0.7, 1.3) * size * (1.0 - np.exp(-age / DECAY_S))
        for column, ages in enumerate((slice(1, 2), slice(1, 4), slice(2, 4))):
            signal[start:][ages, column] += side
    return path, signal[:n]


def _features(rng: np.random.Generator, signal: np.ndarray, names: Sequence[str]) -> pl.DataFrame:
    n = signal.shape[0]
    values = rng.normal(0.0, 1.0, (n, len(names)))
    values[:, :3] += 4.0 * signal
    return pl.DataFrame({"decision_ns": _decisions(n)} | dict(zip(names, values.T, strict=True)))


def _decisions(n: int) -> np.ndarray:
    return store.day_start_ns(DATE) + (START_S + np.arange(n)) * NS_PER_S


def _labels(cfg: Config, venue: str, path: np.ndarray, n: int) -> pl.DataFrame:
    start = _decisions(n)
    columns: dict[str, np.ndarray] = {"decision_ns": start}
    fee = cfg.fees[venue]
    for horizon_s in cfg.labels.horizons_s:
        held = int(horizon_s)
        if held > 60:
            continue
        cell, gross = TakerCell(horizon_s), path[held : n + held] - path[:n]
        columns[cell.ret_bps] = gross
        for side in SIDES:
            columns[cell.net_bps(side)] = side * gross - 2.0 * fee.taker_bps - 0.2
        columns[cell.end_ns] = start + held * NS_PER_S + 40_000_000
    rules = [THROUGH, TOUCH, *map(gate_rule, cfg.labels.gates_usd)]
    for side in SIDES:
        for delta_bps in cfg.labels.deltas_bps:
            columns |= _maker_columns(cfg, rules, side, delta_bps, path, start)
    return pl.DataFrame(columns)


def _maker_columns(
    cfg: Config, rules: list[str], side: int, delta_bps: float, path: np.ndarray, start: np.ndarray
) -> dict[str, np.ndarray]:
    """Filled once the mid has moved delta and a tenth against the order within 10 s, then held and taken out."""
    n, rest = start.size, 10
    adverse = -side * (sliding_window_view(path, rest + 1)[:n] - path[:n, None])
    through = adverse[:, 1:] >= delta_bps + 0.1
    filled, wait = through.any(axis=1), through.argmax(axis=1) + 1
    fee, columns = cfg.fees["binance_um"], {}
    for held in (10, 60):
        leave = path[np.minimum(np.arange(n) + wait + held, path.size - 1)]
        gross = np.where(filled, side * (leave - path[:n]), 0.0)
        net = np.where(filled, gross + delta_bps + 0.1 - fee.maker_bps - fee.taker_bps - 0.1, 0.0)
        end = start + np.where(filled, wait + held, rest) * NS_PER_S + 60_000_000
        for rule in rules:
            cell = MakerCell(delta_bps, float(held), rule)
            columns[cell.gross_bps(side)], columns[cell.net_bps(side)], columns[cell.end_ns(side)] = gross, net, end
            columns[cell.fill_ns(side)] = pl.Series(start + wait * NS_PER_S).set(pl.Series(~filled), None)
    return columns
