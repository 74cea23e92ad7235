"""Holes that an earlier process left open: which they are, what of them is on disk, and that the next one fills it."""

from pathlib import Path

import pytest

from core.gaps import unmended
from core.schema import GAPS
from core.store import Partition, append
from ingest.events import NOT_RUNNING, Event, Gap, Trade, TradeHole
from ingest.open_holes import MOST_TOLD, OpenHole, ids_of, open_holes
from ingest.packing import TABLES, frame_of
from ingest.trade_stream import TradeStream
from tests.ingest.test_refill import resumed

S = 10**9


def at(number: int, late_s: int = 0, assumed: bool = False) -> Trade:
    """The trade of a second, which has its number."""
    ns = number * S
    return Trade("BTCUSDT", ns, ns + late_s * S, str(number), 1.5, 1.0, "buy", assumed)


def gap(before: int, after: int, reason: str = "", mended: bool = False) -> Gap:
    told = reason or f"aggTrade {before} is followed by {after}"
    return Gap("BTCUSDT", "trades", before * S, after * S, told, mended)


def put(root: Path, *events: Event) -> None:
    for kind in (Trade, Gap):
        rows = frame_of(TABLES[kind], [event for event in events if type(event) is kind])
        append(root, Partition(TABLES[kind].name, "binance_um", "BTCUSDT", "1970-01-01"), rows, 0, 0)


def test_open_are_those_before_the_last_trade_that_no_row_says_are_mended(tmp_path: Path) -> None:
    gaps = [
        gap(1, 5),
        gap(6, 9), gap(6, 9, "aggTrades 7-8 missed, 2 refilled by REST", mended=True),
        gap(10, 14, f"{NOT_RUNNING}: aggTrade 10 is followed by 14"),
        gap(15, 19, "aggTrades 17-18 missed: the venue gives no trade 17"),
        gap(20, 24, "binance_um silent for 9 s"),
        gap(25, 29, "aggTrade 900 is followed by 2: counted anew"),
        gap(30, 34),
    ]  # fmt: skip
    there = [at(number) for number in (1, 5, 6, 9, 10, 14, 15, 19, 30)]
    put(tmp_path, *gaps, *there, at(2, 2, assumed=True), at(3, 7), at(11, 1, assumed=True))
    assert open_holes(tmp_path, "binance_um", at(30)) == [
        OpenHole(TradeHole("BTCUSDT", 2, 4, 1 * S, 5 * S), [(4, 4)]),  # 3 came late
        OpenHole(TradeHole("BTCUSDT", 11, 13, 10 * S, 14 * S), [(12, 13)]),
        OpenHole(TradeHole("BTCUSDT", 17, 18, 15 * S, 19 * S), [(17, 18)]),
    ]


def test_holes_that_overlap_ask_for_no_trade_twice(tmp_path: Path) -> None:
    """Killed before the trade behind the first was on disk; the next filled a part of what it told, and was killed."""
    before, behind = [at(number) for number in (1, 40)], at(3, 30, assumed=True)
    put(tmp_path, gap(1, 5), gap(1, 40), gap(2, 4, "aggTrades 3-4 missed: HTTP 500"), *before, behind, at(7, 1))
    holes = open_holes(tmp_path, "binance_um", at(40))
    assert [(each.hole.first_id, each.hole.last_id) for each in holes] == [(2, 4), (2, 39), (3, 4)]
    asked = [number for each in holes for first, last in each.left for number in range(first, last + 1)]
    assert sorted(asked) == [2, 4, 5, 6, *range(8, 40)]
    stream = TradeStream("BTCUSDT", "aggTrade")
    stream.resume(40, 40 * S, 40 * S, holes)
    for each, left in zip(holes, ([2, 4], asked, [4]), strict=True):
        runs = stream.missing(each.hole)
        assert sorted(number for first, last in runs for number in range(first, last + 1)) == sorted(left)
    assert [stream.fill(number) is None for number in (2, 4, 39)] == [False] * 3
    assert [stream.fill(number) is None for number in (2, 4, 39)] == [True] * 3


@pytest.mark.parametrize(
    ("reason", "ids"),
    [
        ("aggTrade 4 is followed by 9", (5, 8)),
        ("aggTrades 5-6, 8-8 missed: HTTP 500", (5, 8)),
        ("aggTrades 5-8 missed, 4 refilled by REST", None),
        (f"aggTrades {', '.join(['1234-1234'] * 50)[:MOST_TOLD]} missed: HTTP 500", None),
        ("aggTrade 9 is followed by 4: counted anew", None),
        ("9 rows dropped: No space left on device", None),
    ],
)
def test_ids_are_those_of_the_reason_if_it_tells_all(reason: str, ids: tuple[int, int] | None) -> None:
    assert ids_of(reason) == ids


def test_the_next_process_fetches_what_is_left_and_says_so_of_the_whole_hole() -> None:
    holes = [
        OpenHole(TradeHole("BTCUSDT", 2, 4, 1 * S, 5 * S), [(2, 2), (4, 4)]),
        OpenHole(TradeHole("BTCUSDT", 7, 8, 6 * S, 9 * S), []),  # killed before it was said
    ]

    mended, trades = resumed(21, last=at(20), holes=holes, gaps=2, trades=3)
    assert sorted(int(each.trade_id) for each in trades) == [2, 4, 21]
    assert all(S <= each.recv_ns <= 5 * S for each in trades if each.recv_assumed)
    assert unmended(frame_of(GAPS, [gap(1, 5), gap(6, 9), *mended])).is_empty()
    assert [each.known_ns for each in mended] == [5 * S, 9 * S]
