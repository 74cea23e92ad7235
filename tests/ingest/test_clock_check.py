"""Clocks: what the kernel says, and venues asked over HTTP, with answers that are late, wrong or missing."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from core.config import Hosts
from core.servers import local_hosts
from ingest import clock_check
from ingest.clock_check import Clocks, KernelClock, VenueClock, check_clocks, kernel_clock, time_url, venue_clocks

MS, S = 1_000_000, 1_000_000_000


@contextmanager
def venue(answer: Callable[[str], tuple[int, str]]) -> Iterator[Hosts]:
    """All venues at one local address; `answer` gives status and body of a path."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the parent's name)
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield local_hosts(f"127.0.0.1:{server.server_address[1]}")
        server.shutdown()
        thread.join()


def ask(hosts: Hosts, *venues: str) -> dict[str, VenueClock]:
    return {clock.venue: clock for clock in asyncio.run(venue_clocks(venues, hosts))}


def skewed(skew_ns: int) -> Callable[[str], tuple[int, str]]:
    def answer(path: str) -> tuple[int, str]:
        now_ns = time.time_ns() + skew_ns
        if path == "/v5/market/time":
            return 200, f'{{"retCode":0,"result":{{"timeSecond":"{now_ns // S}","timeNano":"{now_ns}"}},"time":1}}'
        if path in ("/fapi/v1/time", "/api/v3/time"):
            return 200, f'{{"serverTime":{now_ns // MS}}}'
        return 404, "{}"

    return answer


@pytest.mark.parametrize("skew_s", [0, -2, 3])
def test_the_offset_of_a_venue_is_found_within_half_the_round_trip(skew_s: int) -> None:
    with venue(skewed(skew_s * S)) as hosts:
        found = ask(hosts, "binance_um", "binance", "bybit", "bybit_inverse")
    assert sorted(found) == ["binance", "binance_um", "bybit", "bybit_inverse"]
    for clock in found.values():
        assert clock.problem == ""
        assert abs(clock.offset_ns - skew_s * S) <= clock.half_round_trip_ns + MS  # Binance tells milliseconds
        assert clock.is_off == (skew_s != 0)


def test_a_slow_answer_is_no_offset() -> None:
    def late(path: str) -> tuple[int, str]:
        answer = skewed(0)(path)
        time.sleep(0.4)
        return answer

    with venue(late) as hosts:
        clock = ask(hosts, "bybit")["bybit"]
    assert clock.offset_ns < -50 * MS
    assert not clock.is_off


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (451, "no", "answered with HTTP 451"),
        (200, "[]", "holds no time"),
        (200, "{}", "holds no time"),
        (200, '{"serverTime":"soon"}', "holds no time"),
        (503, "", "answered with HTTP 503"),
    ],
)
def test_a_venue_that_does_not_tell_is_a_problem_and_no_error(status: int, body: str, words: str) -> None:
    with venue(lambda path: (status, body)) as hosts:
        clock = ask(hosts, "binance_um")["binance_um"]
    assert words in clock.problem
    assert "Error" not in clock.problem
    assert not clock.is_off


def test_a_venue_that_does_not_answer_in_time_is_a_problem_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_check, "_TIMEOUT_S", 0.1)

    def never(path: str) -> tuple[int, str]:
        time.sleep(0.4)
        return 200, "{}"

    with venue(never) as hosts:
        assert ask(hosts, "bybit")["bybit"].problem.endswith("did not answer within 0.1 s")


def test_a_host_that_is_not_there_is_a_problem_and_no_error() -> None:
    found = ask(local_hosts("127.0.0.1:9"), "binance_um")["binance_um"]
    assert found.problem == "cannot connect to http://127.0.0.1:9"
    assert time_url("okx", Hosts()) == ""
    assert ask(Hosts(), "okx") == {}


def test_the_kernel_is_asked_here() -> None:
    clock = kernel_clock()
    assert clock is None or (clock.estimated_error_ns >= 0 and clock.largest_error_ns >= 0)


def test_lines_warn_of_what_should_worry() -> None:
    off, fine, mute = (
        VenueClock("a", 80 * MS, 5 * MS),
        VenueClock("b", -80 * MS, 40 * MS),
        VenueClock("c", 0, 0, "gone"),
    )
    lines = Clocks(KernelClock(False, 2 * S, 3 * S, 0), [off, fine, mute]).lines()
    assert [line.startswith("WARNING") for line in lines] == [True, True, False, False]
    assert lines[1] == "WARNING clock of a: 80.0 ms ± 5.0 ms ahead of ours"
    assert lines[2] == "clock of b: 80.0 ms ± 40.0 ms behind ours"
    assert lines[3] == "clock of c: unknown, gone"
    assert Clocks(KernelClock(True, 2 * MS, 9 * MS, 0), []).lines() == [
        "clock: synchronised, estimated error 2.0 ms, at most 9.0 ms"
    ]
    assert Clocks(KernelClock(True, 0, 0, 60 * MS), []).lines()[0].startswith("WARNING")
    assert "does not say" in Clocks(None, []).lines()[0]


def test_the_kernels_word_for_an_unknown_error_is_not_told_as_one() -> None:
    unset = Clocks(KernelClock(False, 16 * S, 16 * S, 0), [])
    assert unset.lines() == ["WARNING clock: not synchronised (error unknown), receive times drift: run chrony"]
    assert unset.facts()["estimated_error_ms"] is None
    assert Clocks(KernelClock(True, 2 * MS, 9 * MS, 0), []).facts()["estimated_error_ms"] == 2.0


def test_a_check_is_of_both() -> None:
    with venue(skewed(0)) as hosts:
        clocks = asyncio.run(check_clocks(["bybit"], hosts))
    assert [clock.venue for clock in clocks.venues] == ["bybit"]
    assert abs(clocks.facts()["venues"][0]["offset_ms"]) < 5_000
