"""What a poll says at its end: per series what is new, the last value and how old it is; errors and events."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final

from core.errors import StageError
from core.run_record import Stage
from core.text_table import grouped_lines
from core.units import NS_PER_S, counted
from ingest.collectors import Target
from ingest.poller import Poller, Tally
from ingest.signal_checks import age_text
from ingest.signal_log import SignalLog

_MOST_LINES: Final = 60
_HEADS: Final = ("series", "new", "last value", "of (UTC)", "lag")
_LEAST_WANTED: Final = ("of (UTC)", "lag")


def report(stage: Stage, poller: Poller, derived: Counter[str], log: SignalLog, now_ns: int) -> None:
    """Print the table and put the section `poll`. Raises StageError for a collector that brought nothing at all."""
    rows = _series(poller, now_ns)
    stage.rows_in = sum(tally.points for tally in poller.tallies.values())
    stage.rows_out = sum(poller.news.values()) + sum(derived.values())
    errors = {key: tally.last_error for key, tally in poller.tallies.items() if tally.errors}
    faults = {key: dict(tally.faults) for key, tally in poller.tallies.items() if tally.faults}
    requests = dict(sorted(poller.providers.requests.items()))
    section = {"requests": requests, "series": rows, "derived": dict(sorted(derived.items()))}
    stage.put("poll", section | {"errors": errors, "unreadable": faults, "events": dict(sorted(log.counts.items()))})
    asked = ", ".join(f"{name} {count:,}" for name, count in requests.items()) or "none: nothing is due yet"
    stage.say(f"requests: {asked}", keep=False)
    for line in _table(rows, stage.width):
        stage.say(line, keep=False)
    for name, count in sorted(derived.items()):
        stage.say(f"derived: {name} {count:,} new", keep=False)
    for key, why in errors.items():
        stage.say(f"error: {key}, {counted(poller.tallies[key].errors, 'time')}, the last: {why}", keep=False)
    for key, counts in faults.items():
        told = ", ".join(f"{what}, {counted(count, 'time')}" for what, count in counts.items())
        stage.say(f"unreadable: {key}: {told}", keep=False)
    if log.counts:
        told = ", ".join(f"{kind} {count:,}" for kind, count in sorted(log.counts.items()))
        stage.say(f"events: {told}; see {log.path}", keep=False)
    _judge(poller)


def _judge(poller: Poller) -> None:
    """Raises StageError for collectors none of whose requests brought a value; for a whole provider in one."""
    by_provider: dict[str, dict[str, str]] = {}
    for name, targets in _by_collector(poller).items():
        tallies = [poller.tallies[target.key] for target in targets]
        why = "" if any(tally.points for tally in tallies) else next(filter(None, map(_trouble, tallies)), "")
        by_provider.setdefault(targets[0].collector.provider, {})[name] = why
    silent = []
    for provider, collectors in by_provider.items():
        if all(collectors.values()):
            silent.append(f"no series could be had from {provider} ({next(iter(collectors.values()))})")
        else:
            silent += [f"collector {name} brought nothing ({why})" for name, why in collectors.items() if why]
    if silent:
        raise StageError(f"{'; '.join(silent)}: what others gave is stored")


def _by_collector(poller: Poller) -> dict[str, list[Target]]:
    """Targets by the name of their collector, but for those that were not due."""
    found: dict[str, list[Target]] = {}
    for target in poller.targets:
        if poller.tallies[target.key].is_asked:
            found.setdefault(target.name, []).append(target)
    return found


def _trouble(tally: Tally) -> str:
    """Why a target brought nothing; empty where the answer was sound and had no value."""
    if tally.faults:
        what, count = tally.faults.most_common(1)[0]
        return f"{what}, {counted(count, 'time')}"
    return tally.last_error


def _series(poller: Poller, now_ns: int) -> list[dict[str, Any]]:
    """One row per series and instrument, in the order of the declarations."""
    rows = []
    for target in poller.targets:
        for name in target.series:
            newest = poller.recent[target.exchange, target.symbol, name].newest
            row: dict[str, Any] = {"exchange": target.exchange, "symbol": target.symbol, "series": name}
            row["new"] = poller.news[target.exchange, target.symbol, name]
            tally = poller.tallies[target.key]
            row |= {"errors": tally.errors, "unreadable": tally.faults.total()}
            if newest is not None:
                row |= {"time_ns": newest[0], "value": newest[1], "lag_s": round((now_ns - newest[0]) / NS_PER_S, 3)}
            rows.append(row)
    return rows


def _table(rows: list[dict[str, Any]], width: int) -> list[str]:
    """A line per series, and how often asking for it and reading it failed, where any did."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    faults = tuple(name for name in ("errors", "unreadable") if any(row[name] for row in rows))
    for row in rows[:_MOST_LINES]:
        cells = (*_cells(row), *(f"{row[name]:,}" for name in faults))
        groups.setdefault(f"{row['exchange']}:{row['symbol']}", []).append(cells)
    told = grouped_lines((*_HEADS, *faults), groups, width, _LEAST_WANTED)
    if len(rows) > _MOST_LINES:
        new = sum(row["new"] for row in rows[_MOST_LINES:])
        told.append(f"and {len(rows) - _MOST_LINES} series more, {new:,} new rows: all stand in report.json")
    return told


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    name, new = row["series"], f"{row['new']:,}"
    if "value" not in row:
        return name, new, "–", "–", "–"
    time = f"{datetime.fromtimestamp(row['time_ns'] / NS_PER_S, UTC):%Y-%m-%d %H:%M:%S}"
    return name, new, f"{row['value']:.6g}", time, age_text(int(row["lag_s"] * NS_PER_S))
