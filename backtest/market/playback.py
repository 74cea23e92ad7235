"""Recordings as the venues that they were made of: what a client subscribes to, by the venues' own protocols.

A stream is found by its symbol and its kind, since recorded names differ in speed (`@depth@0ms`). Frames go out as they
were recorded, wrapped or not. A REST call is answered with the latest recorded answer for its path and symbol, or with
the first one to come: a book can be built where the recording built one, and nowhere else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import parse_qs, urlsplit

from backtest.market.frame import stream_of
from backtest.market.sessions import BYBIT, Session, open_session

_SPOT = "binance"
_BYBIT_PATHS = {"/v5/public/linear": "bybit", "/v5/public/spot": "bybit_spot", "/v5/public/inverse": "bybit_inverse"}


@dataclass
class Player:
    """What one client hears of the recordings: all of one, or what its session asks for of a venue's."""

    venue: str
    recording: int | None = None
    session: Session = field(default_factory=lambda: Session(_SPOT))

    def hears(self, venue: str, number: int) -> bool:
        """Whether a recording is one of those that it hears anything of."""
        return number == self.recording if self.recording is not None else venue == self.venue

    def heard(self, texts: Iterable[str]) -> list[bool]:
        """Which of a recording's lines it hears; never REST answers."""
        if self.recording is not None:
            return [not text.startswith("http") for text in texts]
        wanted = {(topic.symbol, topic.kind) for topic in self.session.heard}
        return [_name(stream_of(text)[0]) in wanted for text in texts]


@cache
def _name(stream: str) -> tuple[str, str | None]:
    """Symbol and kind of a stream."""
    _, kind = stream_of(f'{{"stream":"{stream}"')
    binance, _, _ = stream.partition("@")
    return (binance.upper() if "@" in stream else stream.rpartition(".")[2]), kind


def player_at(target: str, number: int) -> Player | None:
    """The player of a connection to a venue's request target, None where no venue listens. `/stream` is spot's."""
    path = urlsplit(target).path.rstrip("/")
    if path in _BYBIT_PATHS:
        return Player(_BYBIT_PATHS[path], session=Session(BYBIT, number=number, combined=True))
    session = open_session(target, number)
    if session is None:
        return None
    if path.startswith(("/public", "/market")):
        return Player("binance_um", session=session)
    everything = open_session(target, number, category="")
    assert everything is not None
    return Player(_SPOT, session=everything)


class RecordedAnswers:
    """The latest recorded REST answer for each path and symbol."""

    def __init__(self) -> None:
        self._bodies: dict[tuple[str, str], str] = {}

    def keep(self, texts: Iterable[str]) -> None:
        """Remember the answers among recorded lines: `https://… body`."""
        for text in texts:
            if text.startswith("http"):
                url, _, body = text.partition(" ")
                self._bodies[_asked(url)] = body

    def find(self, target: str, coming: Iterable[str]) -> str | None:
        """The answer to a request target, from what was or what is to come."""
        wanted = _asked(target)
        if wanted in self._bodies:
            return self._bodies[wanted]
        answers = (text.partition(" ") for text in coming if text.startswith("http"))
        return next((body for url, _, body in answers if _asked(url) == wanted), None)


def _asked(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.path, parse_qs(parts.query).get("symbol", [""])[0]
