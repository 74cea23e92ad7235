"""Rows of the page's tables and facts from the sections of report.json: text and units chosen, nothing drawn."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from core.cells import THROUGH
from core.units import NS_PER_S

Row = Mapping[str, Any]
Facts = list[tuple[str, str]]
"""Label, and value with its unit."""


def utc(ns: int | None) -> str:
    """`2026-01-05 06:00:00` of a time in nanoseconds, a dash for None."""
    return "–" if ns is None else datetime.fromtimestamp(ns // NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S")


def winner_facts(winner: Row) -> Facts:
    """The winner's own settings, without those that its kind does not have."""
    candidate = winner.get("candidate") or {}
    told = {
        "kind": candidate.get("kind"),
        "model": winner.get("model"),
        "holding time T": _with_unit(candidate.get("horizon_s"), "g", "s"),
        "position bound for, at most": _with_unit(winner.get("held_s"), "g", "s"),
        "offset δ": _with_unit(candidate.get("delta_bps"), "g", "bps"),
        "fill rule": candidate.get("rule"),
        "fill gate": _with_unit(candidate.get("gate_usd"), ",.0f", "USD"),
        "least probability": _with_unit(candidate.get("threshold"), ".2f"),
        "least predicted move": _with_unit(candidate.get("edge_bps"), ".2f", "bps"),
    }
    return [(label, value) for label, value in told.items() if value is not None]


def live_facts(live: Row) -> Facts:
    """What a session did; what it never came to (fills in shadow) is left out."""
    latency_us = live.get("latency_us") or {}
    told = {
        "model": live.get("model_id"),
        "verdict": live.get("verdict"),
        "market time": _with_unit(live.get("minutes"), "g", "min"),
        "decisions": _with_unit(live.get("decisions"), ",d"),
        "decisions while windows filled": _with_unit(live.get("cold"), ",d"),
        "sides": _with_unit(live.get("sides"), ",d"),
        "orders": _with_unit(live.get("orders"), ",d"),
        "kept back by limits": _with_unit(live.get("limited"), ",d"),
        "fills": _with_unit(live.get("fills"), ",d"),
        "open at the end": _with_unit(live.get("unsettled"), ",d"),
        "fill rate": _with_unit(live.get("fill_rate"), ".3f"),
        "gross per fill": _with_unit(live.get("gross_bps"), "+.2f", "bps"),
        "net per fill": _with_unit(live.get("net_bps"), "+.2f", "bps"),
        "net per order": _with_unit(live.get("net_bps_per_order"), "+.2f", "bps"),
        "net": _with_unit(live.get("net_usd"), "+.2f", "USD"),
        "latency, median": _with_unit(latency_us.get("p50"), ",.0f", "µs"),
        "latency, 99 %": _with_unit(latency_us.get("p99"), ",.0f", "µs"),
    }
    return [(label, value) for label, value in told.items() if value is not None]


def data_rows(data: Mapping[str, Mapping[str, Row]]) -> list[dict[str, Any]]:
    """One row per exchange and table, times as text."""
    return [
        {
            "name": f"{exchange} {table}",
            "rows": facts.get("rows"),
            "first": utc(facts.get("first_ns")),
            "last": utc(facts.get("last_ns")),
            "gaps": facts.get("gaps"),
        }
        for exchange, tables in data.items()
        for table, facts in tables.items()
    ]


def backtest_rows(holdout: Row) -> list[tuple[str, Row]]:
    """Each symbol's figures, those of all of them last."""
    return [*(holdout.get("by_symbol") or {}).items(), ("all", holdout)]


def taker_rows(labels: Sequence[Row]) -> list[dict[str, Any]]:
    """What any decision to take would have earned, both sides, by T."""
    return [row for row in both_sides([row for row in labels if row["kind"] == "taker"]) if row["n"]]


def maker_rows(labels: Sequence[Row]) -> list[dict[str, Any]]:
    """What any decision to rest an order would have earned, both sides, by offset and T, on the verdict's fill rule."""
    return both_sides([row for row in labels if row["kind"] == "maker" and row["rule"] == THROUGH])


def both_sides(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Buy and sell cells of one (delta, T) as one row, weighted by their orders; none without an order."""
    merged: dict[tuple[float, float], list[Row]] = {}
    for row in rows:
        if row["n"]:
            merged.setdefault((row["delta_bps"], row["horizon_s"]), []).append(row)
    return [
        {"delta_bps": delta, "horizon_s": horizon, "n": sum(row["n"] for row in pair)}
        | {name: _mean(pair, name) for name in ("fill_rate", "mean_net_bps")}
        for (delta, horizon), pair in merged.items()
    ]


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(sum(row[name] * row["n"] for row in rows) / sum(row["n"] for row in rows))


def _with_unit(value: float | None, form: str, unit: str = "") -> str | None:
    return None if value is None else f"{value:{form}} {unit}".rstrip()
