"""What the venues' frames have in common: field types, typed decoding, symbols, the clock that a venue does not give.

Venues send numbers as texts and add keys without notice, so the structs are lax about both, and strict about what a
number may be: a price is positive and finite, an identifier fits 64 bits.
"""

import math
import re
from collections import deque
from collections.abc import Callable
from typing import Annotated, Final, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from ingest.events import DecodeError

T = TypeVar("T")
MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a frame raises that is not what its stream promises: to be turned into a DecodeError."""
_MOST: Final = 1e18  # beyond any price or quantity of any venue, and far from where sums lose meaning
_FIRST_US: Final = 100_000_000_000_000  # 1973 in microseconds, 5138 in milliseconds
_LAST_US: Final = 9_000_000_000_000_000  # 2255, the last whole year or so that int64 nanoseconds hold
_LAST_MS: Final = _LAST_US // 1_000

Price = Annotated[float, Meta(gt=0, lt=_MOST)]
Qty = Annotated[float, Meta(ge=0, lt=_MOST)]
Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Epoch = Annotated[int, Meta(ge=0, le=_LAST_US)]
"""Unix time in milliseconds, or in microseconds where the connection asked for them (Binance spot)."""
EpochMs = Annotated[int, Meta(ge=0, le=_LAST_MS)]
Levels = list[tuple[Price, Qty]]


class Wire(msgspec.Struct, frozen=True, gc=False):
    """A message as a venue writes it. Keys that are not named are skipped."""


class Wrapped(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """A message inside a combined stream's or a topic's envelope."""

    data: T


def message_decoder(wire_type: type[T]) -> Callable[[bytes], T]:
    """A function from a frame's bytes to `wire_type`. It raises what MALFORMED names.

    It is msgspec's own: one more of ours around it costs a tenth of decoding a frame.
    """
    return msgspec.json.Decoder(wire_type, strict=False).decode


def frame_decoder(wire_type: type[T], wrapped: bool) -> Callable[[bytes], Wrapped[T]]:
    """The same inside an envelope, which is put around a bare message."""
    if wrapped:
        return message_decoder(Wrapped[wire_type])  # type: ignore[valid-type]
    decode = message_decoder(wire_type)
    return lambda frame: Wrapped(decode(frame))


def frame_bytes(frame: str | bytes) -> bytes:
    """UTF-8 of a frame. Raises DecodeError for a text that has none (lone surrogates)."""
    if isinstance(frame, bytes):
        return frame
    try:
        return frame.encode()
    except UnicodeEncodeError as error:
        raise DecodeError(str(error)) from error


def epoch_ns(time: int) -> int:
    """Nanoseconds of a wire time, whose size tells milliseconds from microseconds. Raises DecodeError in between."""
    if time <= _LAST_MS:
        return time * NS_PER_MS
    if time >= _FIRST_US:
        return time * NS_PER_US
    raise DecodeError(f"expected a time in milliseconds or microseconds, was {time}")


def optional_number(text: str | None) -> float | None:
    """A number that a venue may leave out or empty. Raises DecodeError for another text."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError as error:
        raise DecodeError(f"expected a number, was {text!r}") from error
    if not math.isfinite(number) or abs(number) >= _MOST:
        raise DecodeError(f"expected a finite number, was {text!r}")
    return number


_SYMBOL: Final = re.compile(r"\w[\w.-]{0,39}")  # \w: some listings have Chinese names


def admit_symbol(symbol: str) -> str:
    """The symbol itself, if it is fit to be part of a path. Raises DecodeError for what no venue calls a symbol."""
    if not _SYMBOL.fullmatch(symbol):
        raise DecodeError(f"expected a symbol, was {symbol[:60]!r}")
    return symbol


class Symbols:
    """The symbols that were met. Most frames repeat one that was met before."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def admit(self, symbol: str) -> str:
        """The symbol itself. Raises DecodeError as `admit_symbol` does."""
        if symbol not in self._known:
            self._known.add(admit_symbol(symbol))
        return symbol

    def is_known(self, symbol: str) -> bool:
        return symbol in self._known


class VenueClock:
    """The venue's time for messages that have none: receipt less a causal low percentile of receive - exchange time.

    The first percentile over 60 s (method.md section 1) is the least delay that is not an outlier; it is negative where
    the local clock runs behind. Until a stream with times was heard, the two clocks are taken to agree.
    """

    WINDOW_NS: Final = 60 * NS_PER_S
    QUANTILE: Final = 0.01
    _REFRESH_NS: Final = NS_PER_S  # sorting 60 s of samples at each message would cost more than decoding it
    _SAMPLE_NS: Final = 10 * NS_PER_MS  # the first of a burst has waited least
    _FEW: Final = 64

    def __init__(self) -> None:
        self._times_ns: deque[int] = deque()
        self._delays_ns: deque[int] = deque()
        self.delay_ns = 0
        """What receipt is later than the venue's time; negative where the local clock runs behind."""
        self._refresh_at_ns = 0
        self._sample_at_ns = 0

    def heard(self, exch_ns: int, recv_ns: int) -> None:
        """A message with a venue time arrived."""
        if recv_ns < self._sample_at_ns and len(self._delays_ns) >= self._FEW:
            return
        self._sample_at_ns = recv_ns + self._SAMPLE_NS
        times_ns, delays_ns = self._times_ns, self._delays_ns
        times_ns.append(recv_ns)
        delays_ns.append(recv_ns - exch_ns)
        while times_ns[0] < recv_ns - self.WINDOW_NS:
            times_ns.popleft()
            delays_ns.popleft()
        if recv_ns >= self._refresh_at_ns or len(delays_ns) < self._FEW:
            self._refresh_at_ns = recv_ns + self._REFRESH_NS
            rank = int((len(delays_ns) - 1) * self.QUANTILE)
            self.delay_ns = int(np.partition(np.fromiter(delays_ns, np.int64, len(delays_ns)), rank)[rank])

    def at(self, recv_ns: int) -> int:
        """The venue's time, in nanoseconds, of what was received at `recv_ns`."""
        return recv_ns - self.delay_ns
