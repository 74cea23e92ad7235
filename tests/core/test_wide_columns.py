"""The catalogue of tables has each column that a stage writes, and no other."""

from backtest.engine import OUTCOMES, RECORD
from core.cells import THROUGH, MakerCell, TakerCell, gate_rule
from core.config import Config
from core.schema import TABLES
from core.schema_docs import page
from core.wide_columns import WIDE, WORDS, documented
from ingest.day_quality import FIGURES
from research.bars.columns import BAR_COLUMNS, LEVEL_COLUMNS, MAX_LEVELS, bar_columns
from research.learning.candidates import model_name


def names_of(table: str) -> list[str]:
    return [one.name for one in WIDE[table]]


def test_every_wide_table_says_what_follows_its_fixed_columns() -> None:
    assert {*WIDE} == {*WORDS} == {table.name for table in TABLES if table.extra}
    for table in TABLES:
        names = [*table.columns, *(one.name for one in WIDE.get(table.name, ()))]
        assert len(set(names)) == len(names)
        assert all(f"| `{name}` | " in page() for name in names)


def test_figures_of_quality_and_columns_of_bars_are_those_of_the_code_in_their_order() -> None:
    assert names_of("quality") == list(FIGURES)
    assert names_of("bars") == [*BAR_COLUMNS, *(f"{name}_{{k}}" for name in LEVEL_COLUMNS)]
    assert all(documented("bars", name) for name in bar_columns(MAX_LEVELS))


def test_columns_of_fills_are_those_of_the_engine() -> None:
    assert names_of("fills") == [*(RECORD.names or ())[1:], "symbol"]
    (outcome,) = (one for one in WIDE["fills"] if one.name == "outcome")
    assert all(name in outcome.meaning for name in OUTCOMES)


def test_columns_of_every_cell_and_model_of_the_default_run_are_there() -> None:
    labels, rules = Config().labels, ["touch", THROUGH, gate_rule(50.0), gate_rule(0.5)]
    takers = [TakerCell(horizon_s) for horizon_s in (*labels.horizons_s, 0.5)]
    makers = [MakerCell(delta, 60.0, rule) for delta in (*labels.deltas_bps, 2.5) for rule in rules]
    for side in (1, -1):
        found = [(cell.ret_bps, cell.direction, cell.end_ns, cell.net_bps(side)) for cell in takers]
        found += [(cell.limit(side), cell.fill_ns(side), cell.gross_bps(side), cell.end_ns(side)) for cell in makers]
        assert all(documented("labels", name) for names in found for name in names)
    assert all(documented("scores", f"score_{model_name(family, 10.0)}") for family in Config().train.families)
    assert not documented("labels", "tk_10_nothing")
    assert not documented("scores", "hgb_10")
