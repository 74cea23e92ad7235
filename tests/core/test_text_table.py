"""Tables of text: aligned, whole columns only, nothing wider than the screen."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from core.text_table import BETWEEN, blocks, grouped_lines, table_lines

HEADS = ("name", "rows", "gaps", "last value")
ROWS = [("BTCUSDT", "1,204", "0", "0.5"), ("币安人生USDT", "7", "12", "–")]
cells = st.text("aé币1,.–", min_size=1, max_size=12)
tables = st.integers(2, 9).flatmap(
    lambda count: st.lists(st.lists(cells, min_size=count, max_size=count), min_size=2, max_size=6)
)


def test_names_stand_left_and_figures_right_by_the_cells_that_signs_take() -> None:
    assert table_lines(HEADS, ROWS, 80) == [
        "name           rows  gaps  last value",
        "BTCUSDT       1,204     0         0.5",
        "币安人生USDT      7    12           –",
    ]


def test_what_is_too_wide_goes_in_the_order_of_what_is_wanted_least() -> None:
    assert table_lines(HEADS, ROWS, 30, 1, ("last value", "gaps"))[0].split() == ["name", "rows", "gaps"]
    assert table_lines(HEADS, ROWS, 22, 1, ("last value", "gaps"))[0].split() == ["name", "rows"]
    assert table_lines(HEADS, ROWS, 5, 1, ("last value",))[0].split() == ["name", "rows", "gaps"]


def test_groups_stand_above_their_rows() -> None:
    assert grouped_lines(("name", "rows"), {"binance": [("a", "1"), ("bc", "20")], "bybit": [("d", "3")]}, 80) == [
        "name  rows",
        "binance",
        "  a      1",
        "  bc    20",
        "bybit",
        "  d      3",
    ]


@given(tables, st.integers(4, 60))
def test_blocks_hold_each_column_once_and_fit_unless_a_single_one_does_not(table: list[list[str]], width: int) -> None:
    heads, *rows = table
    found = blocks(heads, rows, width)
    widest = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    at_least = widest[0] + BETWEEN + max(widest[1:])
    assert all(cell_len(line) <= max(width, at_least) for block in found for line in block)
    assert [len(block) for block in found] == [len(table)] * len(found)
    for place, row in enumerate(table):
        assert [cell for block in found for cell in block[place][len(row[0]) :].split()] == row[1:]
