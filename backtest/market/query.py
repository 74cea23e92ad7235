"""The query of a REST request, read as the venues read it, and how they refuse it."""

from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

from core.units import NS_PER_MS

Reply = tuple[HTTPStatus, object]
"""Status and body, JSON-encodable or raw JSON."""
_FAR_MS: Final = 2**43  # year 2248: beyond any request, within int64 nanoseconds


class Refusal(Exception):
    """A request that the venue does not answer: its own error code, and its words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Span(NamedTuple):
    """A stretch of time, both ends included; what the client left out is unbounded."""

    from_ns: int
    to_ns: int

    def holds(self, times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (times_ns >= self.from_ns) & (times_ns <= self.to_ns)


class Query:
    """`path` and named values of a request target; `missing` is the code for what should be there and is not."""

    def __init__(self, target: str, missing: int) -> None:
        parts = urlsplit(target)
        self.path = parts.path
        self._missing = missing
        self._values = dict(parse_qsl(parts.query))

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, default)

    def required(self, name: str) -> str:
        if not (text := self.text(name)):
            raise Refusal(self._missing, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        return text

    def integer(self, name: str) -> int | None:
        text = self.text(name)
        if text and not (text.isascii() and text.isdecimal()):
            raise Refusal(self._missing, f"Illegal characters found in parameter '{name}'.")
        return int(text) if text else None

    def limit(self, default: int, highest: int) -> int:
        """A count of rows: what is not asked for or more than there may be becomes what the venue gives."""
        asked = self.integer("limit")
        return default if not asked else min(asked, highest)

    def span(self, start: str = "startTime", end: str = "endTime") -> Span:
        from_ms, to_ms = self.integer(start), self.integer(end)
        return Span(
            min(from_ms or 0, _FAR_MS) * NS_PER_MS, min(_FAR_MS if to_ms is None else to_ms, _FAR_MS) * NS_PER_MS
        )
