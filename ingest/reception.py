"""From socket to sink: a message is stamped, decoded, kept raw if asked, and passed on with the gaps that it shows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from msgspec.structs import replace

from core.errors import StageError
from core.plain_rows import PlainRows
from core.schema import BOOK_DELTAS, KLINES, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES
from core.units import NS_PER_MS
from ingest.damage import Damage
from ingest.events import BookUpdate, DecodeError, Event, Gap, Kline, Liquidation, Mark, Quote, Trade, told_at
from ingest.open_holes import OpenHole
from ingest.raw import RawWriter
from ingest.receive_clock import ReceiveClock
from ingest.venues import Plan, decoder_for

TABLE_OF: Final[dict[type, str]] = {
    Quote: TOP_OF_BOOK.name,
    Trade: TRADES.name,
    BookUpdate: BOOK_DELTAS.name,
    Liquidation: LIQUIDATIONS.name,
    Mark: MARK_PRICES.name,
    Kline: KLINES.name,
}
KIND_OF: Final = {table: kind for kind, table in TABLE_OF.items()}
_REST: Final = b"h"  # a recorded REST answer begins with its URL, a frame with a bracket
_MAX_SAMPLES: Final = 20  # undecodable frames kept per connection
_MOST_HELD: Final = 200_000  # events between `open` and `run`, which are only apart while other connections open

Pass = Callable[[int, list[Event]], None]
"""Takes what was received up to a time; no events where only time went on."""
TakeRows = Callable[[str, PlainRows], None]
DecodeRun = Callable[[Sequence[bytes], Sequence[int], TakeRows, Callable[[int], bool]], None]
"""`FrameRuns.decode`."""


class Sample(NamedTuple):
    """A frame that did not decode, for the log."""

    recv_ns: int
    url: str
    why: str
    frame: str


@dataclass
class Counts:
    """What a feed has seen and done."""

    frames: int = 0
    undecoded: int = 0
    reconnects: int = 0
    rotations: int = 0
    refilled: int = 0
    """Trades fetched by REST."""
    paused: int = 0
    """How often reading was paused because the writer was behind."""
    samples: list[Sample] = field(default_factory=list)


class Reception:
    """What one feed received. `heard_ns` is when each stream's last event came, by (symbol, kind of event).

    Events go to `deliver`; until that is set they are held.
    """

    def __init__(
        self, plan: Plan, url: str, clock: ReceiveClock, only: frozenset[str] | None = None, is_virtual: bool = False
    ) -> None:
        self.plan = plan
        self.url = url
        self.venue, self.decoder = decoder_for(url)
        self.counts = Counts()
        self.now_ns = 0
        """When the last message came."""
        self.heard_ns: dict[tuple[str, type], int] = {}
        self.raw: RawWriter | None = None
        self.deliver: Pass = self._hold
        self._held: list[tuple[int, list[Event]]] = []
        self._held_events = 0
        self.clock = clock
        self._only = only
        self.is_virtual = is_virtual
        self._decode = self.decoder.decode
        self._damage = Damage()
        self._stretches = self._damage.stretches
        self._steps_seen = clock.step_count
        self._before_ns = 0
        self._repeats = 0
        self._unsure_ns: dict[str, int] = {}
        self._silent: dict[str, Gap] = {}  # what was told last of trades that are silent, by symbol

    def release_to(self, deliver: Pass) -> None:
        """Pass on what was held, and everything from here on."""
        held, self._held = self._held, []
        self.deliver = deliver
        for recv_ns, events in held:
            deliver(recv_ns, events)

    def present_ns(self) -> int:
        """The present on the receive clock, or in virtual time."""
        return self.now_ns if self.is_virtual else self.clock.now_ns()

    def take_now(self, message: bytes) -> None:
        """A venue's frame: it is stamped now."""
        recv_ns = self.clock.now_ns()
        self._before_ns = self.now_ns or recv_ns
        self.now_ns = recv_ns
        if self.clock.step_count != self._steps_seen:
            self._tell_steps()
        events = self._take(message, recv_ns)
        heard_ns = self.heard_ns
        for event in events:
            heard_ns[event.symbol, type(event)] = recv_ns
        if not events:
            self._hear_repeat(message, recv_ns)
        elif self._silent:
            events = self._heard_again(events)
        self.deliver(recv_ns, events)

    def take_stamped(self, message: bytes) -> None:
        """A frame with its receive time, or a watermark. Raises StageError if it has none."""
        stamp, _, frame = message.partition(b" ")
        try:
            recv_ns = int(stamp)
        except ValueError as error:
            raise StageError(f"{self.plan.url} broke the virtual clock's protocol: {message[:80]!r}") from error
        if frame[:1] == _REST:
            head, _, body = frame.partition(b" ")
            self.take_answer(head.decode(errors="replace"), body, recv_ns)
        else:
            self.take_at(frame, recv_ns)

    def take_at(self, frame: bytes, recv_ns: int) -> None:
        """A frame that was received at a time; where it is empty only time went on."""
        self._before_ns, self.now_ns = self.now_ns or recv_ns, recv_ns
        self._pass_on(recv_ns, self._take(frame, recv_ns) if frame else [])

    def take_answer(self, url: str, body: bytes, recv_ns: int) -> None:
        """A REST answer that was received at a time."""
        self._before_ns, self.now_ns = self.now_ns or recv_ns, recv_ns
        self.counts.frames += 1
        self._pass_on(recv_ns, self._take_rest(url, body, recv_ns))

    def take_run(self, frames: Sequence[bytes], recv_ns: Sequence[int], decode: DecodeRun, take_rows: TakeRows) -> None:
        """Many frames, as `take_at` takes each; what can be is passed on as rows. While a stretch is broken, or frames
        are kept, they are taken one by one."""
        if self._stretches or self.raw is not None:
            for frame, frame_ns in zip(frames, recv_ns, strict=True):
                self.take_at(frame, frame_ns)
            return
        singles = passed = 0

        def pass_to(place: int) -> None:
            """The frames before that place were taken: a stretch may be over since."""
            nonlocal passed
            for at_ns in recv_ns[passed:place] if self._stretches else ():
                self.tell(self._damage.settle(at_ns), at_ns)
            passed = place

        def take_one(place: int) -> bool:
            nonlocal singles
            singles += 1
            pass_to(place)
            undecoded = self.counts.undecoded
            self.take_at(frames[place], recv_ns[place])
            return self.counts.undecoded == undecoded

        def take_wanted(symbol: str, rows: PlainRows) -> None:
            if self._only is None or f"{self.venue}:{symbol}" in self._only:
                take_rows(symbol, rows)

        decode(frames, recv_ns, take_wanted, take_one)
        pass_to(len(frames))
        self.counts.frames += len(frames) - singles
        self.now_ns = recv_ns[-1] if recv_ns else self.now_ns

    def _pass_on(self, recv_ns: int, events: list[Event]) -> None:
        if self._only is not None:
            events = [event for event in events if f"{self.venue}:{event.symbol}" in self._only]
        self.deliver(recv_ns, events)

    def take_rest(self, url: str, body: bytes) -> list[Event]:
        """A REST answer that we asked for; its events, for whoever asked to pass on. Virtual time waits for none."""
        self.counts.frames += 1
        recv_ns = self.present_ns()
        return self._take_rest(url, body, recv_ns)

    def resume(self, last: Trade, holes: Sequence[OpenHole] = ()) -> None:
        """Go on from the last trade that an earlier process wrote, of a symbol whose ids tell what came since, and from
        the holes that it left open."""
        self.decoder.resume(last.symbol, int(last.trade_id), last.exch_ns, last.recv_ns, holes)
        self.heard_ns[last.symbol, Trade] = self._unsure_ns[last.symbol] = last.recv_ns

    def settle(self) -> None:
        """Tell the broken stretches that are over, where no frame comes to show it."""
        if self._stretches:
            now_ns = self.present_ns()
            self.tell(self._damage.settle(now_ns), now_ns)

    def tell(self, events: Sequence[Event], now_ns: int | None = None) -> None:
        """Pass on what we know ourselves, by default at present. A gap that ended before then says so."""
        if events:
            now_ns = self.present_ns() if now_ns is None else now_ns
            self.deliver(now_ns, [told_at(event, now_ns) if type(event) is Gap else event for event in events])

    def lost(
        self, since_ns: Mapping[tuple[str, str], int], reason: str, until_ns: int = 0, until_heard: bool = False
    ) -> None:
        """Tell what was lost of which (symbol, table) since when, until now (0) or another time; with `until_heard` no
        longer than until a stream was heard that has spoken since.

        Trades that have gapless ids tell it themselves when the next one comes, so that what was not missed or is
        refilled is no gap; `finish` tells of those that none came after. One that is silent may be so for hours: it is
        told, and closed when a trade comes.
        """
        gaps, now_ns = list[Event](), self.present_ns()
        for (symbol, table), from_ns in since_ns.items():
            if table == TRADES.name and self.decoder.refills and (symbol, Trade) in self.heard_ns:
                unsure_ns = self._unsure_ns.get(symbol, from_ns)
                if self.heard_ns[symbol, Trade] > unsure_ns:  # what was lost before then is known
                    unsure_ns = from_ns
                self._unsure_ns[symbol] = min(unsure_ns, from_ns)
                if until_heard and self.heard_ns[symbol, Trade] <= self._unsure_ns[symbol]:
                    gap = Gap(symbol, table, self._unsure_ns[symbol], until_ns or now_ns, reason, False)
                    self._silent[symbol] = gap
                    gaps.append(gap)
            else:
                heard_ns = self.heard_ns.get((symbol, KIND_OF[table]), 0)
                to_ns = heard_ns if until_heard and heard_ns > from_ns else until_ns or self.now_ns
                gaps.append(Gap(symbol, table, from_ns, to_ns, reason, False))
        self.tell(gaps, now_ns)

    def finish(self) -> None:
        """The feed has ended: tell the gaps that are still open."""
        now_ns = self.now_ns
        unsure: list[Event] = [
            Gap(symbol, TRADES.name, since_ns, now_ns, "not connected, and no trade since", False)
            for symbol, since_ns in self._unsure_ns.items()
            if self.heard_ns[symbol, Trade] <= since_ns
        ]
        self.tell([*self._damage.settle(now_ns, finished=True), *unsure, *self.decoder.finish(now_ns)])

    def _heard_again(self, events: list[Event]) -> list[Event]:
        """The same, and that silences are over: of what was missed in them the ids have told in front of the trade."""
        came = {event.symbol for event in events if type(event) is Trade} & self._silent.keys()
        over = [self._silent.pop(symbol) for symbol in came]
        return [*events, *(replace(gap, reason=f"a trade came again: {gap.reason}", mended=True) for gap in over)]

    def _take(self, frame: bytes, recv_ns: int) -> list[Event]:
        """Decode one frame. One that does not decode is counted and sampled, and leaves a gap."""
        self.counts.frames += 1
        try:
            events = self._decode(frame, recv_ns)
        except (DecodeError, UnicodeDecodeError) as error:
            events = self._spoilt(frame, recv_ns, str(error))
        if self.raw is not None:
            self.raw.write(recv_ns, self.url, frame)
        if self._stretches and (over := self._damage.settle(recv_ns)):
            events = [*over, *events]
        return events

    def _hear_repeat(self, frame: bytes, recv_ns: int) -> None:
        """A stream that repeats itself is no row and yet not silent: Bybit sends a quiet orderbook.1 each 3 s."""
        repeats = self.decoder.repeated.total()
        if repeats == self._repeats:
            return
        self._repeats = repeats
        if stream := self.decoder.stream_of(frame):
            symbol, table = stream
            if (symbol, KIND_OF[table]) in self.heard_ns:
                self.heard_ns[symbol, KIND_OF[table]] = recv_ns

    def _take_rest(self, url: str, body: bytes, recv_ns: int) -> list[Event]:
        """A REST answer, asked for or recorded. One that does not decode is counted and sampled: nothing is lost."""
        if self.raw is not None:
            self.raw.write(recv_ns, url, body)
        try:
            return self.decoder.decode_rest(url, body, recv_ns)
        except (DecodeError, UnicodeDecodeError) as error:
            self._sample(recv_ns, url, str(error), body)
            return []

    def _spoilt(self, frame: bytes, recv_ns: int, why: str) -> list[Event]:
        """The gaps that an undecodable frame leaves: in its stream, or in all if not even that can be read."""
        self._sample(recv_ns, self.url, why, frame)
        reason = f"a frame did not decode: {why}"[:200]
        gaps = self.decoder.gap_of(frame, recv_ns, reason)
        if not gaps:
            gaps = [Gap(*stream, self._before_ns, recv_ns, reason, False) for stream in self.plan.feeds]
        return self._damage.note(gaps)

    def _sample(self, recv_ns: int, url: str, why: str, frame: bytes) -> None:
        self.counts.undecoded += 1
        if len(self.counts.samples) < _MAX_SAMPLES:
            self.counts.samples.append(Sample(recv_ns, url, why, frame[:2000].decode(errors="replace")))

    def _tell_steps(self) -> None:
        """The wall clock was set: how much time passed around then is not known."""
        for at_ns, step_ns in self.clock.steps_since(self._steps_seen):
            from_ns, reason = min(self._before_ns, at_ns), f"clock set by {step_ns / NS_PER_MS:+.0f} ms"
            self.tell([Gap(*stream, from_ns, at_ns, reason, False) for stream in self.plan.feeds], self.now_ns)
        self._steps_seen = self.clock.step_count

    def _hold(self, recv_ns: int, events: list[Event]) -> None:
        """Takes events while nobody else does."""
        if events:
            self._held.append((recv_ns, events))
            self._held_events += len(events)
            if self._held_events > _MOST_HELD:
                raise StageError(f"{self.plan.url}: {self._held_events:,} events came before anyone read them")
