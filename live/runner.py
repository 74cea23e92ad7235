"""The runner's core: decoded events in, orders out. No socket, no file, no ambient clock: those are the driver's.

    events -> bars -> features -> score -> side -> policy -> order

Bars, features and the decision rule are the functions that research uses, on a tile of one row; limits are the
backtest's. One model serves every instrument. All that happens is written to the journal (buffered, until the driver
flushes it) in the order in which it happens, so that the batch computation can be run over the same events.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.schema import BOOK_DELTAS
from ingest.events import BookUpdate, Event, Gap
from live.journal import CLOCK, Header, Journal, State, state_sha256
from live.manifest import Bundle
from live.paper import PaperAccount
from research.bar_columns import BAR_COLUMNS
from research.bars import Bars, ClosedBars, as_events
from research.catalogue import feature_rows
from research.clocks import decision_step_ns, is_decision, parse_clock
from research.decision import decide
from research.program import Stream

BARS, FEATURES = "bars.", "features."
"""Prefixes of the arrays of an instrument's state."""
_NO_VALUES = (0.0, 0.0, 0.0, 0.0)


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
    bars: Bars
    features: Stream
    now_ns: int = 0
    """No event is taken as received before this: a recorded clock may step back, a gap may be told late."""
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
        self.instruments = {
            name: _started(number, name, state, bundle) for number, (name, state) in enumerate(starts.items())
        }
        self.latencies_ns: list[int] = []
        self.cold_decisions = 0

    def feed(self, events: Mapping[str, list[Event]], now_ns: int, in_hand_ns: int) -> None:
        """Take what arrived, per instrument and in order of receipt, then let time reach `now_ns`.

        The caller vouches that nothing received before `now_ns` will follow. `in_hand_ns` is when, on the monotonic
        clock, the newest frame was in hand: latency counts from there.
        """
        for name, instrument in self.instruments.items():
            if name in events:
                self._take(instrument, events[name], in_hand_ns)
            if now_ns >= instrument.next_close_ns:
                self._close(instrument, now_ns, in_hand_ns)
        if self._account is not None:
            for fill in self._account.settle(now_ns):
                self._journal.fill(*fill)

    def _take(self, instrument: _Instrument, arrived: list[Event], in_hand_ns: int) -> None:
        seen = sorted(filter(_is_of_bars, arrived), key=received_ns)
        rows = as_events(seen)
        np.maximum(rows["recv_ns"], instrument.now_ns, out=rows["recv_ns"])
        if self._account is not None:
            self._account.observe(instrument.number, seen)
        self._on_bars(instrument, instrument.bars.push(rows), in_hand_ns)
        for (recv_ns, kind, side, *values), venue_ns in zip(rows.tolist(), exchange_times(seen), strict=True):
            self._journal.event(instrument.number, kind, side, recv_ns, venue_ns, values)

    def _close(self, instrument: _Instrument, now_ns: int, in_hand_ns: int) -> None:
        """Let the instrument's clock reach `now_ns`; written down only where it closed a bar."""
        closed = instrument.bars.advance(now_ns)
        instrument.now_ns = now_ns
        instrument.next_close_ns = now_ns - now_ns % self.bar_ns + self.bar_ns if self.bar_ns else 0
        if len(closed):
            self._journal.event(instrument.number, CLOCK, 0, now_ns, now_ns, _NO_VALUES)
            self._on_bars(instrument, closed, in_hand_ns)

    def _on_bars(self, instrument: _Instrument, closed: ClosedBars, in_hand_ns: int) -> None:
        if not len(closed):
            return
        decides = np.flatnonzero(is_decision(closed.close_ns, self._step_ns))
        rows = _features(instrument.features, closed, decides)
        for row, decision_ns in zip(rows, closed.close_ns[decides].tolist(), strict=True):
            self._decide(instrument, decision_ns, row, in_hand_ns)
        self._journal.bars(instrument.number, closed.open_ns, closed.close_ns, closed.bar_index, closed.values)

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


def _features(stream: Stream, closed: ClosedBars, decides: NDArray[np.int64]) -> NDArray[np.float64]:
    """Features (m, features) of the bars that are decisions. One bar takes the short way: 5 us against 20."""
    rows = feature_rows(closed.values, closed.close_ns)
    if len(closed) > 1:
        return stream.run(rows, closed.bar_index, decides)
    return stream.step(rows[0], int(closed.bar_index[0]))[None][: decides.size]


def _is_of_bars(event: Event) -> bool:
    """Bars hold the best prices only: the book's depth, and what was missed of it, do not concern them."""
    return not isinstance(event, BookUpdate) and getattr(event, "stream", "") != BOOK_DELTAS.name


def received_ns(event: Event) -> int:
    """When an event became known."""
    return event.to_ns if isinstance(event, Gap) else event.recv_ns


def exchange_times(events: Iterable[Event]) -> list[int]:
    """The venue's times of events; a gap has none and gets the time at which it became known."""
    return [event.to_ns if isinstance(event, Gap) else event.exch_ns for event in events]


def header(bundle: Bundle, mode: str, starts: Mapping[str, State]) -> Header:
    """The journal's header for a session of this model from these states."""
    manifest = bundle.manifest
    return Header(
        model_id=manifest.model_id,
        mode=mode,
        instruments=tuple(starts),
        bars=manifest.bars,
        bar_columns=BAR_COLUMNS,
        features=manifest.features,
        start_sha256={name: state_sha256(state) for name, state in starts.items()},
    )


def join_state(bars: Mapping[str, NDArray[Any]], features: Mapping[str, NDArray[Any]]) -> State:
    """One state of both kernels."""
    return {BARS + name: array for name, array in bars.items()} | {
        FEATURES + name: array for name, array in features.items()
    }


def part_of(state: Mapping[str, NDArray[Any]], prefix: str) -> State:
    """The part of a joined state that one kernel restores."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def _started(number: int, name: str, state: State, bundle: Bundle) -> _Instrument:
    bars, features = Bars(parse_clock(bundle.manifest.bars)), bundle.program.start(tile=1)
    bars.restore(part_of(state, BARS))
    features.restore(part_of(state, FEATURES))
    return _Instrument(number, name, bars, features)
