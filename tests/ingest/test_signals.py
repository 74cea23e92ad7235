"""Signals: names, revisions, and reading without the future."""

from pathlib import Path

import filelock
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import StageError
from core.schema import SIGNALS
from core.store import partitions
from core.units import NS_PER_DAY, NS_PER_S
from ingest.archives.withdrawal import withdraw_signals
from ingest.signals import as_of, as_of_each, asset_of, merge_signals, read_signal, signal_rows, without_repeats

T0 = 1_767_225_600 * NS_PER_S  # 2026-01-01


def oi(time_s: float, value: float, known_s: float) -> tuple[str, int, float, str, int]:
    return "oi_btc", T0 + int(time_s * NS_PER_S), value, "5m", T0 + int(known_s * NS_PER_S)


@pytest.mark.parametrize(
    ("symbol", "asset"),
    [
        ("BTCUSDT", "btc"),
        ("ETHUSDC", "eth"),
        ("BTCUSD", "btc"),
        ("BTCUSDH27", "btc"),
        ("BTCPERP", "btc"),
        ("BTC-27MAR26", "btc"),
        ("BTCUSDT_260327", "btc"),
        ("USDCUSDT", "usdc"),
        ("SUSDUSDT", "susd"),
        ("1000PEPEUSDT", "1000pepe"),
        ("币安人生USDT", "币安人生"),
        ("ALL", "all"),
    ],
)
def test_an_asset_is_the_symbol_without_its_quote_and_expiry(symbol: str, asset: str) -> None:
    assert asset_of(symbol) == asset


def test_an_unchanged_value_is_not_stored_again_and_a_changed_one_is_a_new_row(tmp_path: Path) -> None:
    first = signal_rows([oi(0, 10.0, 30), oi(300, 11.0, 330)])
    assert merge_signals(tmp_path, "binance_um", "BTCUSDT", first).equals(first)
    again = signal_rows([oi(0, 10.0, 400), oi(300, 11.5, 630), oi(600, 12.0, 630)])
    news = merge_signals(tmp_path, "binance_um", "BTCUSDT", again)
    assert news.equals(signal_rows([oi(300, 11.5, 630), oi(600, 12.0, 630)]))
    stored = read_signal(tmp_path, "oi_btc", "binance_um:BTCUSDT")
    assert stored.equals(signal_rows([oi(0, 10.0, 30), oi(300, 11.0, 330), oi(300, 11.5, 630), oi(600, 12.0, 630)]))
    assert merge_signals(tmp_path, "binance_um", "BTCUSDT", again).is_empty()


def test_what_is_assumed_never_makes_a_revision_known_before_it_was(tmp_path: Path) -> None:
    observed = signal_rows([oi(0, 100.0, 330), oi(0, 200.0, 3_900)])
    merge_signals(tmp_path, "binance_um", "BTCUSDT", observed)
    archive = signal_rows([oi(0, 200.0, 300.02), oi(300, 11.0, 600.02)])
    news = merge_signals(tmp_path, "binance_um", "BTCUSDT", archive, assumed=True)
    assert news.equals(archive.tail(1))
    stored = read_signal(tmp_path, "oi_btc", "binance_um:BTCUSDT")
    assert stored.equals(pl.concat([observed, archive.tail(1)]))


def test_a_writer_that_waits_too_long_says_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.signals._LOCK_S", 0.05)
    rows = signal_rows([oi(300, 10.0, 320)])
    with filelock.FileLock(tmp_path / "signals.lock"):
        with pytest.raises(StageError, match=r"another poll or backfill .* wait for it to end and run this again"):
            merge_signals(tmp_path, "bybit", "BTCUSDT", rows)
        with pytest.raises(StageError, match="another poll or backfill"):
            withdraw_signals(tmp_path, "bybit", "BTCUSDT", rows)
    assert merge_signals(tmp_path, "bybit", "BTCUSDT", rows).height == 1


def test_rows_lie_in_the_utc_day_of_what_they_are_of(tmp_path: Path) -> None:
    rows = signal_rows([oi(-1, 1.0, 5), oi(0, 2.0, 5), oi(NS_PER_DAY / NS_PER_S, 3.0, 90_000)])
    merge_signals(tmp_path, "bybit", "BTCUSDT", rows)
    assert [part.date for part in partitions(tmp_path, SIGNALS)] == ["2025-12-31", "2026-01-01", "2026-01-02"]
    middle = read_signal(tmp_path, "oi_btc", "bybit:BTCUSDT", from_ns=T0, to_ns=T0 + NS_PER_DAY)
    assert middle["value"].to_list() == [2.0]


def test_a_series_is_read_by_instrument_name_and_resolution(tmp_path: Path) -> None:
    rows = [oi(0, 1.0, 5), ("oi_btc", T0, 2.0, "1h", T0 + 5), ("oi_usd_btc", T0, 3.0, "5m", T0 + 5)]
    merge_signals(tmp_path, "bybit", "BTCUSDT", signal_rows(rows))
    merge_signals(tmp_path, "binance_um", "BTCUSDT", signal_rows([oi(0, 9.0, 5)]))
    assert read_signal(tmp_path, "oi_btc", "bybit:BTCUSDT", "1h")["value"].to_list() == [2.0]
    assert read_signal(tmp_path, "oi_btc", "bybit:BTCUSDT").height == 2
    assert read_signal(tmp_path, "oi_btc", "okx:BTCUSDT").is_empty()


def test_as_of_gives_each_value_as_it_was_last_known() -> None:
    rows = signal_rows([oi(0, 10.0, 30), oi(300, 11.0, 330), oi(300, 11.5, 630), oi(600, 12.0, 640)])
    assert as_of(rows, T0 + 29 * NS_PER_S).is_empty()
    assert as_of(rows, T0 + 330 * NS_PER_S)["value"].to_list() == [10.0, 11.0]
    assert as_of(rows, T0 + 630 * NS_PER_S)["value"].to_list() == [10.0, 11.5]


def test_a_late_revision_of_an_old_value_does_not_pass_for_the_newest() -> None:
    rows = signal_rows([oi(0, 10.0, 30), oi(300, 11.0, 330), oi(0, 9.0, 400)])
    asked = pl.Series([T0 + second * NS_PER_S for second in (0, 30, 350, 450)])
    assert as_of_each(rows, asked).to_list() == [None, 10.0, 11.0, 11.0]
    assert as_of_each(rows, asked, max_age_ns=100 * NS_PER_S).to_list() == [None, 10.0, 11.0, None]


def test_a_stamp_that_lies_ahead_hides_no_value_of_now() -> None:
    rows = signal_rows([oi(0, 10.0, 30), oi(36_000, 99.0, 40), oi(300, 11.0, 330)])
    asked = pl.Series([T0 + second * NS_PER_S for second in (35, 350, 35_699, 35_700)])
    assert as_of_each(rows, asked).to_list() == [10.0, 11.0, 11.0, 99.0]
    assert as_of(rows, T0 + 350 * NS_PER_S)["value"].to_list() == [10.0, 11.0]


versions = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(0, 30)).map(
        lambda drawn: oi(300 * drawn[0], float(drawn[1]), 300 * drawn[0] + 60 * drawn[2])
    ),
    min_size=1,
    max_size=25,
)


@given(versions, st.integers(0, 80))
def test_the_future_does_not_reach_what_is_read(rows: list[tuple[str, int, float, str, int]], cut: int) -> None:
    """Truncate what becomes known later, and perturb it: the past stays put."""
    at_ns = T0 + cut * 60 * NS_PER_S
    whole = without_repeats(signal_rows(rows))
    past = whole.filter(pl.col("known_ns") <= at_ns)
    perturbed = whole.with_columns(
        value=pl.when(pl.col("known_ns") > at_ns).then(pl.col("value") + 7).otherwise("value")
    )
    asked = pl.Series([at_ns - 60 * NS_PER_S, at_ns])
    for other in (past, perturbed):
        assert as_of(other, at_ns).equals(as_of(whole, at_ns))
        assert as_of_each(other, asked).to_list() == as_of_each(whole, asked).to_list()


@given(versions, st.integers(0, 80))
def test_both_readers_agree(rows: list[tuple[str, int, float, str, int]], cut: int) -> None:
    at_ns = T0 + cut * 60 * NS_PER_S
    stored = without_repeats(signal_rows(rows))
    newest = as_of(stored, at_ns)["value"].tail(1).to_list() or [None]
    assert as_of_each(stored, pl.Series([at_ns])).to_list() == newest


@given(versions)
def test_rows_without_repeats_stay_so_and_keep_the_schema(rows: list[tuple[str, int, float, str, int]]) -> None:
    once = without_repeats(signal_rows(rows))
    assert without_repeats(once).equals(once)
    assert once.select(SIGNALS.key).is_unique().all()
