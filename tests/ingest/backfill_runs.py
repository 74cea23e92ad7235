"""A backfill as a user runs it, and what is in the tables after it."""

import io
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from core.cli import run_stages
from core.config import Config, load
from core.schema import TABLES, Table
from core.store import Partition, partitions, read
from ingest import backfill


def backfilled(root: Path, *pairs: str) -> tuple[dict[str, Any], str]:
    """(sections of the report, what was printed) of the stage with some settings."""
    config = load(pairs=pairs, options={"data_dir": str(root), "source": "archive"})
    return run_backfill(config)


def from_folder(root: Path, folder: Path, *pairs: str) -> str:
    return backfilled(root, f"backfill.path={folder}", *pairs)[1]


def run_backfill(config: Config) -> tuple[dict[str, Any], str]:
    said = io.StringIO()
    record = run_stages(config, {"backfill": backfill.run}, Console(file=said, width=10_000, highlight=False))
    return record.sections, said.getvalue()


def rows(root: Path, table: Table, instrument: str) -> pl.DataFrame:
    """All rows of a table for one `venue:SYMBOL`, day by day."""
    days = [read(root, part) for part in partitions(root, table, [instrument])]
    return pl.concat(days) if days else pl.DataFrame(schema=table.columns)


def everything(root: Path) -> dict[Partition, list[tuple[Any, ...]]]:
    """Every row of every table."""
    return {part: read(root, part).rows() for table in TABLES for part in partitions(root, table)}
