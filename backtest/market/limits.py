"""What one address may ask by REST, and how the venues say that it was too much (exchange_protocols.md A.5, A.8, C.5).

Binance counts weights per minute, calls of /futures/data and of the funding endpoints per five minutes. Over a limit
it answers 429; who goes on is banned (418), for 2 minutes first and twice as long each time. Bybit counts calls per
5 s and answers 403 for 10 minutes. How often one may go on before the ban is not documented: ten times here.
"""

from http import HTTPStatus
from typing import Final, NamedTuple

from backtest.market.query import Query

_WEIGHT, _POSITIONS, _FUNDING, _BYBIT = "weight", "/futures/data", "funding", "bybit"
_PATIENCE: Final = 10
_FIRST_BAN_S: Final = 120.0
_LONGEST_BAN_S: Final = 3 * 86_400.0
_BYBIT_PAUSE_S: Final = 600.0
USED_WEIGHT: Final = "X-MBX-USED-WEIGHT-1M"


class Ceiling(NamedTuple):
    """So many in each window of the clock."""

    most: int
    window_s: float


CEILINGS: Final = {
    _WEIGHT: Ceiling(2400, 60.0),
    _POSITIONS: Ceiling(1000, 300.0),
    _FUNDING: Ceiling(500, 300.0),
    _BYBIT: Ceiling(600, 5.0),
}


class Verdict(NamedTuple):
    """What a call is answered with, besides its body. `body` is that of a refusal."""

    status: HTTPStatus
    headers: dict[str, str]
    body: object = None


class Limits:
    """The counts of one address: all clients of a local server share it."""

    def __init__(self, ceilings: dict[str, Ceiling] = CEILINGS) -> None:
        self._ceilings = ceilings
        self._used: dict[str, tuple[int, int]] = {}
        self._refused = 0
        self._banned_until_s = self._paused_until_s = 0.0
        self._ban_s = _FIRST_BAN_S

    def admit(self, query: Query, now_s: float) -> Verdict:
        """Count a call. `now_s` is on any clock that only moves forward."""
        if query.path.startswith("/v5/"):
            return self._admit_bybit(now_s)
        if now_s < self._banned_until_s:
            return self._refusal(HTTPStatus.IM_A_TEAPOT, self._banned_until_s - now_s)
        kind, cost = cost_of(query)
        used, ceiling = self._count(kind, cost, now_s), self._ceilings[kind]
        if used <= ceiling.most:
            return Verdict(HTTPStatus.OK, self._headers(now_s))
        self._refused += 1
        if self._refused > _PATIENCE:
            self._refused, self._banned_until_s = 0, now_s + self._ban_s
            self._ban_s = min(2 * self._ban_s, _LONGEST_BAN_S)
            return self._refusal(HTTPStatus.IM_A_TEAPOT, self._banned_until_s - now_s)
        return self._refusal(HTTPStatus.TOO_MANY_REQUESTS, ceiling.window_s - now_s % ceiling.window_s)

    def _admit_bybit(self, now_s: float) -> Verdict:
        if self._count(_BYBIT, 1, now_s) > self._ceilings[_BYBIT].most:
            self._paused_until_s = now_s + _BYBIT_PAUSE_S
        if now_s < self._paused_until_s:
            said = {"retCode": 10006, "retMsg": "access too frequent. Please try again later."}
            return Verdict(HTTPStatus.FORBIDDEN, {}, said)
        return Verdict(HTTPStatus.OK, {})

    def _count(self, kind: str, cost: int, now_s: float) -> int:
        """How much of a kind is used in the present window, this call included."""
        window = int(now_s // self._ceilings[kind].window_s)
        before, used = self._used.get(kind, (window, 0))
        self._used[kind] = window, cost + (used if before == window else 0)
        return self._used[kind][1]

    def _headers(self, now_s: float) -> dict[str, str]:
        return {USED_WEIGHT: str(self._count(_WEIGHT, 0, now_s))}

    def _refusal(self, status: HTTPStatus, wait_s: float) -> Verdict:
        banned = status is HTTPStatus.IM_A_TEAPOT
        said = "Way too many requests; IP banned." if banned else "Too many requests; please slow down."
        return Verdict(status, {"Retry-After": str(int(wait_s) + 1)}, {"code": -1003, "msg": said})


def cost_of(query: Query) -> tuple[str, int]:
    """Which count a Binance call is of, and how much it costs there."""
    path = query.path
    if path.startswith(_POSITIONS):
        return _POSITIONS, 1
    if path in ("/fapi/v1/fundingRate", "/fapi/v1/fundingInfo"):
        return _FUNDING, 1
    asked = query.text("limit")
    limit = int(asked) if asked.isdecimal() else 500
    match path.rpartition("/")[2]:
        case "depth":
            return _WEIGHT, 2 if limit <= 50 else 5 if limit <= 100 else 10 if limit <= 500 else 20
        case "klines":
            return _WEIGHT, 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10
        case "aggTrades":
            return _WEIGHT, 20
        case "premiumIndex":
            return _WEIGHT, 1 if query.text("symbol") else 10
    return _WEIGHT, 1
