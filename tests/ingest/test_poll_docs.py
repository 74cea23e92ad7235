"""docs/signals.md is what the declarations say, and its example works."""

import re
import tomllib
from pathlib import Path

from core.config import load
from ingest.declarations import declared
from ingest.signal_docs import DERIVED, DOCS, page, polled_rows

NAMES = (
    "funding_rate_{asset} funding_rate_predicted_{asset} funding_velocity_{asset} oi_{asset} oi_total "
    "ls_ratio_global_{asset} ls_ratio_top_{asset} ls_position_ratio_{asset} taker_ratio_{asset} premium_{asset} "
    "basis_{asset} liq_long_{asset}_1h liq_short_{asset}_1h liq_ratio_{asset}_1h"
)


def test_the_page_is_up_to_date() -> None:
    assert DOCS.read_text() == page(), "run `python ingest/signal_docs.py`"


def test_the_names_that_users_know_are_all_there() -> None:
    known = {row[0].strip("`") for row in polled_rows()} | {name for name, _, _ in DERIVED}
    assert set(NAMES.split()) <= known
    assert all(all(row) for row in polled_rows())  # nothing is left unsaid


def test_the_example_of_an_own_collector_is_one(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(\[poll.+?)```", page(), re.DOTALL)
    (tmp_path / "pipeline.toml").write_text(example)
    found = declared(load(root=tmp_path).poll).collectors["usdt_supply"]
    assert found.path == tomllib.loads(example)["poll"]["collectors"]["usdt_supply"]["path"]
