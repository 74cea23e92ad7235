"""The runner's core: decoded events in, orders out. No socket, no file, no ambient clock: those are the driver's.

    events -> bars -> features -> score -> side -> policy -> order

Bars, features and the decision rule are the functions that research uses, on a tile of one row; limits are the
backtest's. One model serves every instrument. All that happens is written to the journal (buffered, until the driver
flushes it) in the order in which it happens, so that the batch computation can be run over the same events.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.errors import StageError
from core.journal import CLOCK, Header
from core.schema import BOOK_DELTAS
from ingest.events import BookUpdate, Event, Gap, Kline
from ingest.stored_books import holds_back
from live.journal import Journal, State, state_sha256
from live.manifest import Bundle
from live.paper import PaperAccount
from live.slow_series import News, SlowSeries, Versions
from research.bars.bar_pass import BarPass, ClosedBars, join_closed
from research.bars.clocks import decision_step_ns, is_decision, parse_clock
from research.bars.columns import bar_columns, deepest_level
from research.bars.events import as_events, breaks_book
from research.learning.decision import decide
from research.machine.interpreter import TILE
from research.programs.panel import Panel
from research.programs.signal_columns import SignalColumns

_BARS, _FEATURES = "bars.", "features."
"""Prefixes of the arrays of an instrument's state."""
_NO_VALUES = (0.0, 0.0, 0.0, 0.0)
_Closed: TypeAlias = dict[tuple[str, str], list[ClosedBars]]
"""By instrument and clock, the bars that closed."""


class Outcome(IntEnum):
    """What became of a decision. The journal holds the number."""

    NO_SIDE = 0
    ORDERED = 1
    SHADOW = 2  # a side, but the model is not to trade
    LIMITED = 3  # a side, but position or inventory limits forbid it
    NOT_YET = 4  # a side, before the stretch that is to be traded


@dataclass
class _Instrument:
    number: int
    name: str
    bars: BarPass
    """On all clocks that features read."""
    next_close_ns: int = 0


class Runner:
    """Follows some instruments with one model.

    `account` is None in shadow: decisions are made and written, orders are not. `read_clock_ns` is a monotonic wall
    clock, for latencies alone. Orders are placed from `trade_from_ns` on.
    """

    def __init__(
        self,
        bundle: Bundle,
        starts: Mapping[str, State],
        journal: Journal,
        account: PaperAccount | None,
        read_clock_ns: Callable[[], int],
        trade_from_ns: int = 0,
    ) -> None:
        manifest = bundle.manifest
        self._bundle = bundle
        self._journal = journal
        self._account = account
        self._read_clock_ns = read_clock_ns
        self._trade_from_ns = trade_from_ns
        clock = parse_clock(manifest.bars)
        self.bar_ns = clock.step_ns
        self._step_ns = decision_step_ns(clock, manifest.decision)
        self._steps_ns = [parse_clock(name).step_ns for name in bundle.program.clocks]
        self._with_depth = levels_of(bundle) > 0
        self._panel = started_panel(bundle, starts, tile=1, signals={})
        self.slow_series = SlowSeries(bundle.program, journal)
        self.instruments = {
            name: _Instrument(number, name, started_bars(bundle, name, state))
            for number, (name, state) in enumerate(starts.items())
        }
        self.now_ns = 0
        """The time reached, to which all is taken up."""
        self.latencies_ns: list[int] = []
        self.cold_decisions = 0

    def feed(self, events: Mapping[str, list[Event]], now_ns: int, in_hand_ns: int) -> None:
        """Take what arrived, per instrument and in order of receipt, then let time reach `now_ns`.

        The caller vouches that nothing received before `now_ns` will follow. `in_hand_ns` is when, on the monotonic
        clock, the newest frame was in hand: latency counts from there. All bars are closed before any feature is
        computed, since one may look at those of another clock or symbol.
        """
        closed: _Closed = {}
        for name, instrument in self.instruments.items():
            if name in events:
                self._take(instrument, events[name], closed)
            if now_ns >= instrument.next_close_ns:
                self._close(instrument, now_ns, closed)
        if closed:
            self._on_bars({place: join_closed(pieces) for place, pieces in closed.items()}, in_hand_ns)
        self.now_ns = max(self.now_ns, now_ns)
        if self._account is not None:
            for fill in self._account.settle(self.now_ns):
                self._journal.fill(*fill)

    def learn(self, versions: Mapping[str, Versions]) -> None:
        """Take up slow series by instrument, as the table has them now; what was known already changes nothing."""
        self.take_news(self.slow_news(versions, self.now_ns + 1))

    def slow_news(self, versions: Mapping[str, Versions], from_ns: int) -> list[News]:
        """The work of `learn`, which a thread may do: what is new, to be used from `from_ns` on at the earliest."""
        numbers = {name: self.instruments[name].number for name in versions}
        found = [self.slow_series.news(numbers[name], each, from_ns) for name, each in versions.items()]
        return [news for news in found if news is not None]

    def take_news(self, news: Sequence[News]) -> bool:
        """Go on with what is new; False, and nothing done, where time has reached what it should change."""
        if any(each.begins_ns <= self.now_ns for each in news):
            return False
        for each in news:
            self.slow_series.take(each)
            self._panel.signals[list(self.instruments)[each.instrument]] = each.columns
        return True

    def _take(self, instrument: _Instrument, arrived: list[Event], closed: _Closed) -> None:
        """Push what arrived. What is told late (a gap, or anything where a recorded clock stepped back) is taken as
        received at the time that the bars have reached."""
        seen = sorted((event for event in arrived if _is_of_bars(event, self._with_depth)), key=received_ns)
        rows = as_events(seen, self._with_depth)
        np.maximum(rows["recv_ns"], instrument.bars.seen_ns, out=rows["recv_ns"])
        if self._account is not None:
            self._account.observe(instrument.number, seen)
        _note(closed, instrument, instrument.bars.push(rows))
        for (recv_ns, kind, side, *values), venue_ns in zip(rows.tolist(), exchange_times(seen), strict=True):
            self._journal.event(instrument.number, kind, side, recv_ns, venue_ns, values)

    def _close(self, instrument: _Instrument, now_ns: int, closed: _Closed) -> None:
        """Let the instrument's clock reach `now_ns`; written down only where it closed a bar."""
        now_ns = max(now_ns, instrument.bars.seen_ns)
        is_any_closed = _note(closed, instrument, instrument.bars.advance(now_ns))
        instrument.next_close_ns = min(
            now_ns - now_ns % step_ns + step_ns if step_ns else 0 for step_ns in self._steps_ns
        )
        if is_any_closed:
            self._journal.event(instrument.number, CLOCK, 0, now_ns, now_ns, _NO_VALUES)

    def _on_bars(self, closed: Mapping[tuple[str, str], ClosedBars], in_hand_ns: int) -> None:
        """Features of all that closed up to one instant, and what they decide."""
        joined = self._panel.join(lambda name, clock: closed.get((name, clock)))
        for name, instrument in self.instruments.items():
            bars = closed.get((name, self._bundle.manifest.bars))
            if bars is not None:
                decides = np.flatnonzero(is_decision(bars.close_ns, self._step_ns))
                rows = self._panel.evaluate(name, self._panel.rows(name, bars, joined), bars, decides)
                for row, decision_ns in zip(rows, bars.close_ns[decides].tolist(), strict=True):
                    self._decide(instrument, decision_ns, row, in_hand_ns)
                self._journal.bars(instrument.number, bars.open_ns, bars.close_ns, bars.bar_index, bars.values)

    def _decide(self, instrument: _Instrument, decision_ns: int, row: NDArray[np.float64], in_hand_ns: int) -> None:
        """Score a warm row and act on it."""
        if not np.isfinite(row).all():
            self.cold_decisions += 1
            return
        manifest = self._bundle.manifest
        score = self._bundle.scorer.score(row)
        rule = manifest.candidate
        side = int(decide(np.array([score]), manifest.calibration, rule.threshold, rule.edge_bps)[0])
        outcome = self._act(instrument, decision_ns, side)
        latency_ns = self._read_clock_ns() - in_hand_ns
        self.latencies_ns.append(latency_ns)
        self._journal.feature(instrument.number, decision_ns, row)
        self._journal.decision(instrument.number, decision_ns, side, outcome, latency_ns, score)

    def _act(self, instrument: _Instrument, decision_ns: int, side: int) -> Outcome:
        if side == 0:
            return Outcome.NO_SIDE
        if decision_ns < self._trade_from_ns:
            return Outcome.NOT_YET
        if self._account is None:
            return Outcome.SHADOW
        placed = self._account.place(instrument.number, decision_ns, side)
        return Outcome.ORDERED if placed else Outcome.LIMITED


def _note(closed: _Closed, instrument: _Instrument, made: list[ClosedBars]) -> bool:
    """Keep the bars of an instrument that closed, clock by clock; whether there are any."""
    for clock, bars in zip(instrument.bars.clocks, made, strict=True):
        if len(bars):
            closed.setdefault((instrument.name, clock.name), []).append(bars)
    return any(map(len, made))


def _is_of_bars(event: Event, with_depth: bool) -> bool:
    """Candles make no bar. Without levels bars hold the best prices only: the depth, and what was missed of it, do not
    concern them."""
    if isinstance(event, Kline):
        return False
    if isinstance(event, Gap) and event.stream == BOOK_DELTAS.name:
        return with_depth and breaks_book(event)
    return with_depth or not isinstance(event, BookUpdate)


def received_ns(event: Event) -> int:
    """When an event became known."""
    return event.known_ns if isinstance(event, Gap) else event.recv_ns


def exchange_times(events: Iterable[Event]) -> list[int]:
    """The venue's times of events, one per row; a gap has none and gets the time at which it became known."""
    times_ns: list[int] = []
    for event in events:
        rows = len(event.bids) + len(event.asks) if isinstance(event, BookUpdate) else 1
        times_ns += [event.known_ns if isinstance(event, Gap) else event.exch_ns] * rows
    return times_ns


def levels_of(bundle: Bundle) -> int:
    """How many book levels the model's features read."""
    return deepest_level(bundle.program.expressions)


def header(bundle: Bundle, mode: str, starts: Mapping[str, State]) -> Header:
    """The journal's header for a session of this model from these states."""
    manifest = bundle.manifest
    return Header(
        model_id=manifest.model_id,
        mode=mode,
        instruments=tuple(starts),
        bars=manifest.bars,
        bar_columns=bar_columns(levels_of(bundle)),
        features=manifest.features,
        start_sha256={name: state_sha256(state) for name, state in starts.items()},
        signals=tuple(layer.name for layer in bundle.program.signals),
    )


def join_state(bars: BarPass, features: Mapping[str, NDArray[Any]]) -> State:
    """One state of both kernels: bars by clock, and the instrument's part of the panel."""
    saved = zip(bars.clocks, bars.save(), strict=True)
    state = {f"{_BARS}{clock.name}.{key}": array for clock, each in saved for key, array in each.items()}
    return state | {_FEATURES + key: array for key, array in features.items()}


def fresh_bars(bundle: Bundle, name: str) -> BarPass:
    """Bars of an instrument (`venue:SYMBOL`) on every clock that the features read."""
    return BarPass(list(map(parse_clock, bundle.program.clocks)), levels_of(bundle), holds_back(name))


def started_bars(bundle: Bundle, name: str, state: State) -> BarPass:
    """The same as the instrument's state left them."""
    bars = fresh_bars(bundle, name)
    bars.restore([bars_state(state, clock.name) for clock in bars.clocks])
    return bars


def bars_state(state: State, clock: str) -> State:
    """The state of an instrument's bars of one clock."""
    return _part_of(state, f"{_BARS}{clock}.")


def started_panel(
    bundle: Bundle,
    starts: Mapping[str, State],
    tile: int = TILE,
    signals: Mapping[str, SignalColumns] | None = None,
) -> Panel:
    """The features of all instruments, each as its state left it; fresh where it holds none. `signals` as a panel's.

    Raises StageError where they join a symbol that is not followed.
    """
    try:
        panel = Panel(bundle.program, list(starts), tile, signals)
    except ValueError as error:
        raise StageError(f"{bundle.manifest.model_id} cannot follow these symbols: {error}") from None
    for name, state in starts.items():
        features = _part_of(state, _FEATURES)
        if features:
            panel.restore(name, features)
    return panel


def _part_of(state: State, prefix: str) -> State:
    """The part of a joined state that one kernel restores."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
