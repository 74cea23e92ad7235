"""docs/tables.md is what core/schema.py says, and says something of every column."""

from core.config import Capture, Hosts
from core.schema import EVENTS, TABLES
from core.schema_docs import DOCS, FED_BY, MEANINGS, TRAPS, page
from ingest.plans import plans


def test_the_page_is_up_to_date() -> None:
    assert DOCS.read_text() == page(), "run `python -m core.schema_docs`"


def test_every_column_has_a_meaning_and_nothing_else_has() -> None:
    assert {name: list(columns) for name, columns in MEANINGS.items()} == {
        table.name: list(table.columns) for table in TABLES
    }


def test_every_event_table_says_what_feeds_it_and_its_traps() -> None:
    assert {*FED_BY} == {table.name for table in EVENTS}
    assert {*FED_BY} <= {*TRAPS} <= {table.name for table in TABLES}


def test_the_streams_that_are_named_are_those_that_capture_asks_for() -> None:
    capture = Capture(klines=("1m",))
    for plan in plans(["binance_um:A", "binance_cm:A", "binance:A", "bybit:A", "bybit_inverse:A"], capture, Hosts()):
        venue = "Bybit" if "bybit" in plan.url else "Binance"
        for _, table in plan.feeds:
            assert any(name.startswith(venue) for name in FED_BY[table])
