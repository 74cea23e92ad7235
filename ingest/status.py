"""The status of a capture for people: a table that lives in the terminal, or one line where there is none."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from core.text_table import fitting
from core.units import counted
from ingest.monitor import ConnectionStatus, Monitor, StreamStatus, by_table, by_venue, each_stream

_AROUND: Final = 3  # lines beside rows and notes: an empty one, the header, and one left to the cursor
_COLUMNS: Final = ("venue", "table", "symbol", "rows", "rows/s", "p50 ms", "p99 ms", "excess p99", "gaps", "last")
_NAME_COLUMNS: Final = 3
_LEAST_WANTED_FIRST: Final = ("excess p99", "p50 ms", "rows", "p99 ms", "rows/s", "gaps", "last")
"""What goes first where the screen is too narrow for all: a column is shown whole or not at all."""


def status_table(monitor: Monitor, head: str, trouble: str, height: int) -> Group:
    """The finest grouping that fits into `height` lines: streams, tables, or venues; and the columns that fit beside
    each other where it is shown."""
    return Group(_Status(monitor, head, trouble, height))


@dataclass(frozen=True)
class _Status:
    """The status, made when it is rendered: only then its width is known."""

    monitor: Monitor
    head: str
    trouble: str
    height: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        notes = Group(*self._notes())
        around = _AROUND + len(console.render_lines(notes, options))
        fitting = (each for each in (each_stream, by_table) if self.monitor.count(each) + around <= self.height)
        yield Text()
        yield _table(self.monitor.streams(next(fitting, by_venue)), options.max_width)
        yield notes

    def _notes(self) -> Iterator[Text]:
        """Wrapped here: the console of a run leaves that to the terminal, which cuts a live display instead."""
        yield Text(f"{self.head} | {connections_line(self.monitor.connections())}", no_wrap=False, overflow="fold")
        if self.trouble:
            yield Text(self.trouble, style="bold red", no_wrap=False, overflow="fold")


def _table(streams: Sequence[StreamStatus], width: int) -> Table:
    rows = [tuple(_cells(status)) for status in streams]
    shown = fitting(_COLUMNS, rows, width, _LEAST_WANTED_FIRST)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place in shown:
        # Folded where even the names alone are wider than the screen: nothing that is shown is ever cut.
        table.add_column(_COLUMNS[place], justify="left" if place < _NAME_COLUMNS else "right", overflow="fold")
    for status, cells in zip(streams, rows, strict=True):
        table.add_row(*(cells[place] for place in shown), style="yellow" if status.mute or status.age_s is None else "")
    return table


@contextmanager
def displayed(console: Console, make: Callable[[int], Group]) -> Iterator[None]:
    """Show what `make` gives for the screen's height, anew each second, while the context is open; a terminal only.

    It is made on a thread of its own: a hundred streams take some 10 ms, which no frame should wait for.
    """
    if not console.is_terminal:
        yield
        return
    with Live(get_renderable=lambda: make(console.height), console=console, refresh_per_second=1, transient=True):
        yield


def status_line(monitor: Monitor, head: str, trouble: str) -> str:
    """All of it in one line, the latencies per venue."""
    venues = monitor.streams(by_venue)
    rows, rate = sum(venue.rows for venue in venues), sum(venue.rows_per_s for venue in venues)
    gaps, streams = sum(venue.gaps for venue in venues), sum(venue.streams for venue in venues)
    totals = f"{counted(rows, 'row')}, {rate:,.0f}/s, of {counted(streams, 'stream')}, {counted(gaps, 'gap')}"
    parts = [head, totals, connections_line(monitor.connections()), *map(_venue_text, venues)]
    return " | ".join([*parts, trouble] if trouble else parts)


def connections_line(connections: Sequence[ConnectionStatus]) -> str:
    """What all connections together have seen."""
    frames = sum(each.frames for each in connections)
    rate = sum(each.frames_per_s for each in connections)
    undecoded = sum(each.undecoded for each in connections)
    again = counted(sum(each.reconnects for each in connections), "reconnect")
    turned = counted(sum(each.rotations for each in connections), "rotation")
    named = counted(len(connections), "connection")
    return f"{named}: {counted(frames, 'frame')}, {rate:,.0f}/s, {undecoded:,} undecoded, {again}, {turned}"


def _venue_text(status: StreamStatus) -> str:
    latency = (
        "" if status.latency_ms is None else f" {_ms(status.latency_ms[0])}/{_ms(status.latency_ms[-1])} ms p50/p99"
    )
    return f"{status.key.venue}{latency}, last {_age(status)}"


def _cells(status: StreamStatus) -> Iterable[str]:
    latency = ["–", "–"] if status.latency_ms is None else [_ms(value) for value in status.latency_ms]
    excess = "–" if status.excess_ms is None else f"+{_ms(status.excess_ms[-1])}"
    key = status.key
    name = key.symbol or counted(status.streams, "stream")
    figures = (
        f"{status.rows:,}",
        f"{status.rows_per_s:,.1f}",
        *latency,
        excess,
        f"{status.gaps:,}",
        _age(status),
    )
    return chain((key.venue, key.table or "all", name), figures)


def _ms(value: float) -> str:
    return f"{value:,.1f}" if abs(value) < 1_000 else f"{value:,.0f}"


def _age(status: StreamStatus) -> str:
    """How old the last row is, and how many of several streams that should never be silent have sent none."""
    age_s = status.age_s
    if age_s is None:
        return f"never in {span(status.asked_s)}"
    age = f"{age_s:.1f} s" if age_s < 60 else span(age_s)
    return f"{age}, {status.mute:,} never" if status.mute else age


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    minutes, rest_s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} m"
    return f"{minutes} m {rest_s:02} s" if minutes else f"{rest_s} s"
