"""What the tables of a data directory hold decides the source of every later stage."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from core.config import Config, load
from core.errors import ConfigError, StageError
from core.origin import Origin, read_origin, settle_source, write_origin
from core.run_record import RunRecord


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load(options={"data_dir": str(tmp_path)}, root=tmp_path)


def test_nothing_captured_leaves_the_source_as_asked(config: Config) -> None:
    assert read_origin(config) is None
    assert settle_source(config, None) == config


def test_later_stages_take_the_source_of_the_tables(config: Config) -> None:
    write_origin(config, Origin("live"))
    assert settle_source(config, None).source == "live"
    assert settle_source(config, "live").source == "live"


def test_asking_for_another_source_is_refused(config: Config) -> None:
    write_origin(config, Origin("live"))
    with pytest.raises(ConfigError, match="hold live data"):
        settle_source(config, "sim")


def test_a_damaged_mark_is_named(config: Config) -> None:
    config.root.joinpath("source.json").write_text("{")
    with pytest.raises(StageError, match=r"source\.json is damaged"):
        read_origin(config)


@pytest.mark.parametrize("source", ["sim", "replay", "archive", "live"])
@pytest.mark.parametrize("simulated", [False, True])
def test_the_mark_of_a_simulated_market_sticks_whoever_reads_it(config: Config, source: Any, simulated: bool) -> None:
    write_origin(config, Origin("live", simulated=simulated))
    record = RunRecord(msgspec.structs.replace(config, source=source), Console(quiet=True))
    assert record.simulated == (simulated or source == "sim")
