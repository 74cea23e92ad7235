"""Messages on the wire, watermarks, and how far the clients' clocks let a feed go."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from backtest.market.pump import WATERMARK_NS, clock_of, fit_reason, packed, stamped


@given(st.lists(st.text(max_size=300)))
def test_packed_messages_are_the_librarys_own_frames(texts: list[str]) -> None:
    expected = b"".join(Frame(Opcode.TEXT, text.encode()).serialize(mask=False) for text in texts)
    assert packed(texts) == expected


def test_long_messages_have_long_headers() -> None:
    for length in (125, 126, 65_535, 65_536):
        assert packed(["x" * length]) == Frame(Opcode.TEXT, b"x" * length).serialize(mask=False)


@given(st.lists(st.integers(0, 20 * WATERMARK_NS), max_size=12, unique=True), st.integers(1, 5 * WATERMARK_NS))
def test_a_virtual_client_is_told_the_time_every_100_ms(times: list[int], beyond_ns: int) -> None:
    stamps = np.array(sorted(times), np.int64)
    until_ns = (int(stamps[-1]) if stamps.size else 0) + beyond_ns
    told = stamped(stamps, [f"frame {stamp}" for stamp in stamps], 0, until_ns)
    marks = [int(text.partition(" ")[0]) for text in told]
    assert marks == sorted(marks)
    assert marks[-1] == until_ns
    assert told[-1] == f"{until_ns} "
    assert max(np.diff([0, *marks])) <= WATERMARK_NS
    assert [text for text in told if not text.endswith(" ")] == [f"{stamp} frame {stamp}" for stamp in stamps]


def test_recorded_times_that_step_back_are_kept_in_their_order() -> None:
    told = stamped(np.array([500, 300, 400]), ["a", "b", "c"], 0, 600)
    assert told == ["500 a", "300 b", "400 c", "600 "]


def test_a_clock_is_told_from_a_venues_request() -> None:
    assert clock_of('{"clock": 9223372036854775807}') == 2**63 - 1
    assert clock_of('{"method":"SUBSCRIBE","params":[],"id":1}') is None
    assert clock_of('{"clock": "soon"}') is None


def test_a_reason_fits_a_close_frame() -> None:
    assert fit_reason("é" * 100) == "é" * 61
    assert fit_reason("a.jsonl:7: broken line") == "a.jsonl:7: broken line"
