"""What a user is told of decisions without features: which window is longer than the stretch."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from core.config import Config
from core.errors import StageError
from core.run_record import RunRecord
from core.store import Partition
from research.catalogue import compile_texts
from research.quality.feature_counts import DayCount, report

LONG_JOIN = {"joined": "(at_1m (mean_5 close_price))"}


def said_of(features: dict[str, str], clock: str, bars: int, data_dir: Path) -> str:
    """The report on a day of so many bars, each a decision, none of which had all features."""
    day = Partition("features", "binance_um", "BTCUSDT", "2026-01-05", clock)
    counts = [DayCount(day, bars, 0, bars, bars, 0, (0,) * len(features))]
    printed = io.StringIO()
    with RunRecord(Config(data_dir=str(data_dir)), Console(file=printed, width=400)).stage("features") as stage:
        with pytest.raises(StageError) as failed:
            report(stage, compile_texts(features, clock), counts, data_dir)
        assert stage.rows_in == bars, "what was written is told of, too"
    assert str(failed.value).partition("all features")[2] in printed.getvalue()
    return str(failed.value)


@pytest.mark.parametrize(
    ("own", "clock", "bars", "blamed"),
    [
        ({"own": "(mean_4800 close_price)"}, "volume_10", 296, "that of own, 4,799 bars of volume_10: capture more"),
        ({"own": "(mean_20 close_price)"}, "volume_10", 296, "that of (mean_5 close_price) on time_1m, 5 bars (300 s)"),
        ({"own": "(mean_500s close_price)"}, "time_200ms", 1000, "that of own, 2,499 bars (499.8 s)"),
        (
            {"own": "(mean_20s close_price)"},
            "time_200ms",
            1000,
            "that of (mean_5 close_price) on time_1m, 5 bars (300 s)",
        ),
        (
            {"own": "(mean_20s close_price)", "events": "(at_volume_10 (mean_7 close_price))"},
            "time_200ms",
            1600,
            "that of (mean_7 close_price) on volume_10, 7 bars of volume_10",
        ),
    ],
)
def test_the_window_that_the_stretch_cannot_have_filled_is_blamed(
    own: dict[str, str], clock: str, bars: int, blamed: str, tmp_path: Path
) -> None:
    assert f"shorter than the longest window, {blamed}" in said_of(own | LONG_JOIN, clock, bars, tmp_path)
