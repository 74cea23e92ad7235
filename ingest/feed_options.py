"""What all feeds of a run share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ingest.receive_clock import ReceiveClock
from ingest.rest import RestClient


@dataclass(frozen=True)
class FeedOptions:
    """`virtual` offers the virtual clock, which only our own servers accept."""

    clock: ReceiveClock
    virtual: bool
    connect_timeout_s: float = 10.0
    silence_s: float = 10.0
    """Without any frame, and without an answer to a ping, for so long a connection counts as dead."""
    only: frozenset[str] | None = None
    """`venue:SYMBOL`s to let through; None for all."""
    say: Callable[[str], None] = print
    rest: RestClient = field(default_factory=RestClient)
    refill: bool = True
    """Whether trades that a stream left out are fetched, on a venue. They come late: not for who acts on them."""
    behind: Callable[[], bool] | None = None
    """Whether what was received waits to be written. Nothing more is read then."""
    rotate_after_s: float | None = None
    """Replaces the plan's lifetime of a connection."""
    overlap_s: float = 10.0
    """The longest that two connections run beside each other."""
