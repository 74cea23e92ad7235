"""Each symbol-day of a table has one source, whatever lies in a folder and whatever was imported before."""

from collections import Counter
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ingest.archives.choice import DATASETS, Job, choose
from ingest.archives.formats import ArchiveFile, Provider, days_between, days_of
from ingest.archives.manifest import Entry

SYMBOL = "binance_um:BTCUSDT"


def file(dataset: str, when: str, provider: Provider = "binance", symbol: str = SYMBOL) -> ArchiveFile:
    venue, _, name = symbol.partition(":")
    interval = "1m" if dataset == "klines" else ""
    return ArchiveFile(Path(f"/{provider}-{dataset}-{when}"), provider, dataset, venue, name, days_of(when), interval)


def entry(job: Job) -> Entry:
    blank: dict[str, object] = {"number": 1, "file": "", "sha256": "", "size": 0, "mtime_ns": 0, "latency_ms": 0.0}
    blank |= {"only": [], "rows_read": 0, "written": {}, "spans_ns": {}, "dropped": {}, "samples": []}
    each = job.file
    return msgspec.convert(
        {"key": each.key, "provider": each.provider, "dataset": each.dataset, "venue": each.venue,
         "symbol": each.symbol, "interval": each.interval, "tables": job.days_by_table, **blank},
        Entry,
    )  # fmt: skip


def names(jobs: list[Job]) -> list[tuple[str, str, list[str] | None]]:
    return [(job.file.dataset, table, days and sorted(days)) for job in jobs for table, days in job.days.items()]


def test_aggregated_trades_are_taken_rather_than_single_ones() -> None:
    jobs, left_out = choose([file("trades", "2024-03-01"), file("aggTrades", "2024-03-01")], None, [])
    assert names(jobs) == [("aggTrades", "trades", None)]
    assert [each.file.dataset for each in left_out] == ["trades"]


def test_a_months_file_fills_the_days_that_no_daily_one_does() -> None:
    jobs, _ = choose([file("aggTrades", "2024-03"), file("aggTrades", "2024-03-02")], None, [])
    rest = [day for day in days_of("2024-03") if day != "2024-03-02"]
    assert sorted(names(jobs), key=str) == [("aggTrades", "trades", None), ("aggTrades", "trades", rest)]


def test_days_outside_of_what_is_asked_are_left() -> None:
    wanted = frozenset(days_between("2024-03-30", "2024-04-02"))
    files = [file("aggTrades", "2024-03"), file("aggTrades", "2024-04-01"), file("aggTrades", "2024-05-01")]
    jobs, left_out = choose(files, wanted, [])
    assert names(jobs) == [("aggTrades", "trades", ["2024-03-30", "2024-03-31"]), ("aggTrades", "trades", None)]
    assert [each.why for each in left_out] == ["outside backfill.from and backfill.to"]


def test_series_and_candles_do_not_compete() -> None:
    files = [file(name, "2024-03-01") for name in ("metrics", "bookDepth", "klines", "aggTrades", "bookTicker")]
    jobs, left_out = choose(files, None, [])
    assert len(jobs) == 5
    assert not left_out


def test_a_book_file_that_also_has_best_prices_leaves_them_to_a_stream_of_them() -> None:
    files = [file(name, "2024-03-01", "tardis") for name in ("book_snapshot_25", "book_ticker")]
    jobs, _ = choose(files, None, [])
    assert sorted(names(jobs)) == [("book_snapshot_25", "book_deltas", None), ("book_ticker", "top_of_book", None)]


def test_a_day_stays_with_the_file_that_filled_it() -> None:
    first, _ = choose([file("trades", "2024-03-01")], None, [])
    again, left_out = choose([file("aggTrades", "2024-03-01")], None, [entry(first[0])])
    assert not again
    assert "binance/binance_um/BTCUSDT/trades/2024-03-01" in left_out[0].why
    same, _ = choose([file("trades", "2024-03-01")], None, [entry(first[0])])
    assert names(same) == names(first)


def test_a_file_keeps_the_days_it_has_filled_when_others_of_it_are_asked_for() -> None:
    month = file("aggTrades", "2024-03")
    first, _ = choose([month], frozenset(days_between("2024-03-01", "2024-03-05")), [])
    wider, _ = choose([month], frozenset(days_between("2024-03-06", "2024-03-08")), [entry(first[0])])
    assert names(wider) == [("aggTrades", "trades", list(days_between("2024-03-01", "2024-03-08")))]
    narrower, _ = choose([month], frozenset(["2024-03-02"]), [entry(first[0])])
    assert names(narrower) == names(first)


def test_the_same_file_twice_is_imported_once() -> None:
    twin = ArchiveFile(**{**file("trades", "2024-03-01").__dict__, "path": Path("/elsewhere.csv")})
    jobs, left_out = choose([file("trades", "2024-03-01"), twin], None, [])
    assert len(jobs) == 1
    assert "the same as" in left_out[0].why


WHENS = st.sampled_from(["2024-03-01", "2024-03-02", "2024-03-31", "2024-04-01", "2024-03", "2024-04"])
PROVIDERS: list[Provider] = ["binance", "tardis"]
KINDS = [(provider, dataset.name) for provider in PROVIDERS for dataset in DATASETS[provider]]
FILES = st.lists(st.tuples(st.sampled_from(KINDS), WHENS), max_size=25, unique=True)


@given(FILES, st.integers(0, 25))
def test_no_day_of_a_table_has_two_sources_and_none_that_a_file_offers_has_none(
    offered: list[tuple[tuple[Provider, str], str]], at_first: int
) -> None:
    files = [file(dataset, when, provider) for (provider, dataset), when in offered]
    first, _ = choose(files[:at_first], None, [])
    second, _ = choose(files[at_first:], None, [entry(job) for job in first])
    jobs = {job.file.key: job for job in [*first, *second]}.values()
    filled = Counter(
        (table, job.file.dataset if table == "signals" else "", day)
        for job in jobs
        for table, days in job.days_by_table.items()
        for day in days
    )
    assert all(count == 1 for count in filled.values())
    offers = {
        (table.name, each.dataset if table.name == "signals" else "", day)
        for each in files
        for table in next(kind for kind in DATASETS[each.provider] if kind.name == each.dataset).tables
        for day in each.days
    }
    assert set(filled) == offers
