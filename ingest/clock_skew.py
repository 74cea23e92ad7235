"""How far the clock of a capture was from the venues', as its rows tell it.

Receive time less exchange time is skew plus delay. Its first percentile is the skew plus the least delay: below zero
the clock ran behind for certain, far above it ran ahead, or what captured was not reading.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import polars as pl

from core.schema import TRADES
from core.store import files, partitions
from core.units import NS_PER_MS
from ingest.stream_quality import SKEW_QUANTILE

_BEHIND_MS: Final = -10.0  # a clock that is disciplined from afar is off by less
_AHEAD_MS: Final = 1_000.0  # no network takes so long


def skews_ms(root: Path) -> dict[str, float]:
    """By exchange, the first percentile of receive less exchange time of the trades whose two times were told."""
    paths: dict[str, list[Path]] = {}
    for part in partitions(root, TRADES):
        paths.setdefault(part.exchange, []).extend(files(root, part))
    found = {}
    for exchange, mine in paths.items():
        told = pl.scan_parquet(mine).filter(~pl.col("recv_assumed"))
        skew_ns = told.select((pl.col("recv_ns") - pl.col("exch_ns")).quantile(SKEW_QUANTILE, "lower")).collect().item()
        if skew_ns is not None:
            found[exchange] = skew_ns / NS_PER_MS
    return found


def skew_lines(skews: Mapping[str, float], figure: str = "up to") -> list[str]:
    """What is to be told of skews in ms, by exchange; nothing of those that a delay explains. `figure`: which it is."""
    behind = {name: -skew for name, skew in sorted(skews.items()) if skew < _BEHIND_MS}
    ahead = {name: skew for name, skew in sorted(skews.items()) if skew > _AHEAD_MS}
    lines = []
    if behind:
        lines.append(
            f"clock: it ran {figure} {_listed(behind)} behind the venue's: rows are told as received before they were "
            "sent; latencies and labels are measured from the least delay, so they hold"
        )
    if ahead:
        lines.append(f"clock: rows came {_listed(ahead)} after they were sent at the least: was the clock ahead?")
    return lines


def _listed(skews: Mapping[str, float]) -> str:
    return ", ".join(f"{skew:,.0f} ms ({name})" for name, skew in skews.items())
