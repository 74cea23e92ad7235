"""A venue for tests: the slow series of A.6 and C.4 in their documented shapes, by call or on a real socket.

Values are functions of time, so that what a poll stored can be checked against them.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from core.units import NS_PER_DAY, NS_PER_MS
from ingest.rest import RestError

FIVE_MINUTES_MS = 300_000
EIGHT_HOURS_MS = 28_800_000
KEPT_MS = 30 * NS_PER_DAY // NS_PER_MS


def open_interest(time_ms: int) -> float:
    """What is open at a time: whole numbers, so that they survive every representation."""
    return 1_000.0 + time_ms // FIVE_MINUTES_MS * 37 % 97


def funding_rate(time_ms: int) -> float:
    return (time_ms // EIGHT_HOURS_MS % 7 - 3) * 1e-4


class SlowVenue:
    """Answers requests as Binance and Bybit do; `asked` keeps them all."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self.asked: list[str] = []
        self.launched_ms = 0
        """No series has a value before."""
        self.revisions: dict[int, float] = {}
        """Open interest that was changed afterwards, by time."""

    async def get(self, url: str) -> bytes:
        """As ingest.rest.RestClient has it, without sockets."""
        status, body = self.answer(url)
        if status != 200:
            raise RestError(f"GET {url} was refused with HTTP {status}: {body}", status, status >= 500)
        return body.encode()

    def answer(self, url: str) -> tuple[int, str]:
        self.asked.append(url)
        parts = urlsplit(url)
        status, tree = self._answer(parts.path, dict(parse_qsl(parts.query)))
        return status, json.dumps(tree)

    def _answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path.startswith("/v5/"):
            return 200, self._enveloped(path, query)
        if path == "/fapi/v1/premiumIndex":
            return 200, self._premium(query["symbol"])
        if path == "/fapi/v1/fundingRate":
            return 200, self._fundings(query)
        if int(query.get("startTime", self.now_ms())) < self.now_ms() - KEPT_MS:
            return 400, {"code": -1130, "msg": "parameter 'startTime' is invalid."}
        times = self._times(query, FIVE_MINUTES_MS)[-int(query.get("limit", 30)) :]
        return 200, [self._position(path, time) for time in times]

    def _times(self, query: dict[str, str], step_ms: int) -> list[int]:
        now_ms = self.now_ms()
        first = max(int(query.get("startTime", 0)), self.launched_ms, now_ms - 400 * KEPT_MS // 30)
        last = min(int(query.get("endTime", now_ms)), now_ms)
        return list(range(-(-first // step_ms) * step_ms, last + 1, step_ms))

    def _position(self, path: str, time_ms: int) -> dict[str, Any]:
        held = self.revisions.get(time_ms, open_interest(time_ms))
        return {
            "sumOpenInterest": f"{held:.3f}",
            "sumOpenInterestValue": f"{held * 50_000:.8f}",
            "longShortRatio": f"{held / 1_000:.4f}",
            "buySellRatio": "1.5000",
            "futuresPrice": "50100",
            "indexPrice": "50000",
            "timestamp": time_ms,
        }

    def _premium(self, symbol: str) -> dict[str, Any]:
        prices = {"markPrice": "50100.0", "indexPrice": "50000.0", "lastFundingRate": "0.00010000"}
        return {"symbol": symbol} | prices | {"time": self.now_ms()}

    def _fundings(self, query: dict[str, str]) -> list[dict[str, Any]]:
        times = self._times(query, EIGHT_HOURS_MS)[: int(query.get("limit", 100))]
        return [{"fundingRate": f"{funding_rate(time):.8f}", "fundingTime": time} for time in times]

    def _enveloped(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        code, result = 0, {"list": self._newest_first(path, query), "nextPageCursor": ""}
        if "startTime" in query and "endTime" not in query:
            code, result = 10001, {}
        return {"retCode": code, "retMsg": "", "result": result, "time": self.now_ms()}

    def _newest_first(self, path: str, query: dict[str, str]) -> list[dict[str, Any]]:
        if path.endswith("tickers"):
            row = {"lastPrice": "50050", "markPrice": "50100", "indexPrice": "50000", "fundingRate": "0.0002"}
            return [row | {"openInterest": "2000", "openInterestValue": "100000000"}]
        step_ms = EIGHT_HOURS_MS if "funding" in path else FIVE_MINUTES_MS
        times = self._times(query, step_ms)[::-1][: int(query.get("limit", 50))]
        return [
            {
                "timestamp": str(time),
                "fundingRateTimestamp": str(time),
                "openInterest": f"{2 * open_interest(time)}",
                "buyRatio": "0.6",
                "sellRatio": "0.4",
                "fundingRate": f"{funding_rate(time):.8f}",
            }
            for time in times
        ]


@contextmanager
def serving(answer: Callable[[str], tuple[int, str]], headers: dict[str, str] | None = None) -> Iterator[str]:
    """A real HTTP server on loopback that answers GETs with (status, body); its base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = answer(self.path)
            content = body.encode()
            self.send_response(status)
            for name, value in ({"content-length": str(len(content))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Tests are silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
