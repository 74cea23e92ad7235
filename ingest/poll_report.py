"""What a poll says at its end: per series what is new, the last value and how old it is; errors and events."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final

from core.errors import StageError
from core.run_record import Stage
from core.units import NS_PER_S
from ingest.poller import Poller
from ingest.signal_checks import age_text
from ingest.signal_log import SignalLog

_MOST_LINES: Final = 60


def report(stage: Stage, poller: Poller, derived: Counter[str], log: SignalLog, now_ns: int) -> None:
    """Print the table and put the section `poll`. Raises StageError for a provider that gave nothing at all."""
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
    for line in _table(rows):
        stage.say(line, keep=False)
    for name, count in sorted(derived.items()):
        stage.say(f"derived: {name} {count:,} new", keep=False)
    for key, why in errors.items():
        stage.say(f"error: {key} {poller.tallies[key].errors} times, the last: {why}", keep=False)
    for key, counts in faults.items():
        told = ", ".join(f"{what} {count:,} times" for what, count in counts.items())
        stage.say(f"unreadable: {key}: {told}", keep=False)
    if log.counts:
        told = ", ".join(f"{kind} {count:,}" for kind, count in sorted(log.counts.items()))
        stage.say(f"events: {told}; see {log.path}", keep=False)
    _judge(poller)


def _judge(poller: Poller) -> None:
    silent = set()
    for provider in poller.providers.breakers:
        mine = [poller.tallies[one.key] for one in poller.targets if one.collector.provider == provider]
        if any(tally.errors for tally in mine) and not any(tally.has_worked for tally in mine):
            silent.add(f"{provider} ({next(tally.last_error for tally in mine if tally.errors)})")
    if silent:
        raise StageError(f"no series could be had from {'; '.join(sorted(silent))}: what others gave is stored")


def _series(poller: Poller, now_ns: int) -> list[dict[str, Any]]:
    """One row per series and instrument, in the order of the declarations."""
    rows = []
    for target in poller.targets:
        for name in target.series:
            newest = poller.recent[target.exchange, target.symbol, name].newest
            row: dict[str, Any] = {"exchange": target.exchange, "symbol": target.symbol, "series": name}
            row["new"] = poller.news[target.exchange, target.symbol, name]
            row["errors"] = poller.tallies[target.key].errors
            if newest is not None:
                row |= {"time_ns": newest[0], "value": newest[1], "lag_s": round((now_ns - newest[0]) / NS_PER_S, 3)}
            rows.append(row)
    return rows


def _table(rows: list[dict[str, Any]]) -> list[str]:
    where, what = f"{'exchange':<14}{'symbol':<14}{'series':<28}", f"{'last value':>16}  {'of (UTC)':<20}"
    lines = [f"{where}{'new':>8}  {what}{'lag':>8}{'errors':>8}", *(_line(row) for row in rows[:_MOST_LINES])]
    if len(rows) > _MOST_LINES:
        new = sum(row["new"] for row in rows[_MOST_LINES:])
        lines.append(f"and {len(rows) - _MOST_LINES} series more, {new:,} new rows: all stand in report.json")
    return lines


def _line(row: dict[str, Any]) -> str:
    start = f"{row['exchange']:<14}{row['symbol']:<14}{row['series']:<28}{row['new']:>8,}"
    if "value" not in row:
        return f"{start}  {'–':>16}  {'–':<20}{'–':>8}{row['errors']:>8,}"
    time = f"{datetime.fromtimestamp(row['time_ns'] / NS_PER_S, UTC):%Y-%m-%d %H:%M:%S}"
    return f"{start}  {row['value']:>16.9g}  {time:<20}{age_text(int(row['lag_s'] * NS_PER_S)):>8}{row['errors']:>8,}"
