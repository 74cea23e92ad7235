"""What a configuration asks of the bars stage."""

import pytest

from core.config import Config, Features, load
from core.errors import ConfigError
from research.bars.columns import BAR_COLUMNS, LEVEL_COLUMNS, MAX_LEVELS, bar_columns, deepest_level
from research.needs import needed_bars


def of_mine(text: str, **settings: object) -> Config:
    return Config(features=Features(sets=(), mine={"mine": text}), **settings)  # type: ignore[arg-type]


def test_the_default_study_needs_no_depth_and_one_clock() -> None:
    needs = needed_bars(Config())
    assert ([clock.name for clock in needs.clocks], needs.levels) == (["time_200ms"], 0)


def test_levels_are_as_many_as_the_deepest_that_is_read_and_no_less_than_configured() -> None:
    deep = "(sub (mean_5 bid_qty_7) ofi_qty_12)"
    assert needed_bars(of_mine(deep)).levels == 12
    assert needed_bars(of_mine(deep, bars_levels=15)).levels == 15
    assert needed_bars(of_mine("(delta_30 bid_qty)")).levels == 0


def test_further_clocks_come_after_the_runs_own_each_once() -> None:
    needs = needed_bars(of_mine("bid_qty", bars_also=("volume_5", "time_200ms", "time_1m")))
    assert [clock.name for clock in needs.clocks] == ["time_200ms", "volume_5", "time_1m"]


def test_names_of_levels_follow_the_others() -> None:
    assert bar_columns(0) == BAR_COLUMNS
    assert len(bar_columns(MAX_LEVELS)) == len(BAR_COLUMNS) + MAX_LEVELS * len(LEVEL_COLUMNS)
    assert bar_columns(2)[-1] == "ofi_qty_2"
    assert deepest_level(["(mean_20 bid_qty)", "ask_price_3"]) == 3
    assert deepest_level([]) == 0


@pytest.mark.parametrize("pair", ["bars_levels=21", 'bars_also=["1m"]', 'bars_also=["time_1m", "time_1m"]'])
def test_what_bars_cannot_be_is_refused_with_its_path(pair: str) -> None:
    with pytest.raises(ConfigError, match=rf"at `\$\.{pair.partition('=')[0]}"):
        load(pairs=[pair])
