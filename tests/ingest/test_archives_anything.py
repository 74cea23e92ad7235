"""Whatever lies in a file of an archive's name: rows keep to the schema, or the file is refused."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import StageError
from core.schema import check
from ingest.archives import bybit_dumps
from ingest.archives.choice import DATASETS
from ingest.archives.formats import ArchiveFile, Counts, Dataset, Provider

KINDS: list[tuple[Provider, Dataset]] = [(provider, each) for provider in DATASETS for each in DATASETS[provider]]
VALUES = st.sampled_from(
    ["1711670400000", "1711670400000000", "1711670400.25", "2024-03-29 00:00:05", "-1", "0", "1.5", "1e400", "nan",
     "true", "False", "Buy", "SELL", "bid", "ask", "put", "BTCUSDT", "", "None", "9223372036854775808", "é", '"'],
)  # fmt: skip
LINES = st.lists(st.lists(VALUES, min_size=1, max_size=26).map(",".join), max_size=12).map("\n".join)


@pytest.mark.parametrize(("provider", "dataset"), KINDS, ids=lambda each: getattr(each, "name", each))
@settings(deadline=None, max_examples=12)
@given(text=LINES)
def test_rows_keep_to_the_schema_or_the_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, provider: Provider, dataset: Dataset, text: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.csv"
    path.write_text(text)
    counts = Counts()
    file = ArchiveFile(path, provider, dataset.name, "bybit", "BTCUSDT", ("2024-03-29",), "1m")
    try:
        pieces = [piece for batch in dataset.pieces(file, 10, counts) for piece in batch]
    except StageError:
        return
    for piece in pieces:
        rows = piece.rows.drop("symbol", strict=False).sort(piece.table.order)
        if "trade_id" in rows.columns:
            rows = rows.cast({"trade_id": str})
        check(piece.table, rows.unique(piece.table.key, maintain_order=True) if piece.table.key else rows)
    assert counts.read <= text.count("\n") + 1


@settings(deadline=None, max_examples=80)
@given(at=st.integers(0, 175), sign=st.characters(codec="utf-8"))
@example(at=166, sign="0")  # a time of too many digits for ms, and of too few for us
def test_a_message_of_a_book_that_is_not_whole_is_counted(
    tmp_path_factory: pytest.TempPathFactory, at: int, sign: str
) -> None:
    whole = (
        '{"topic":"orderbook.200.BTCUSDT","ts":1755734400002,"type":"snapshot","data":{"s":"BTCUSDT",'
        '"b":[["100.0","1"]],"a":[["100.1","3"]],"u":1,"seq":1},"cts":1755734400000}'
    )
    path = tmp_path_factory.mktemp("book") / "2025-08-21_BTCUSDT_ob200.data"
    path.write_text(f"{whole[:at]}{sign}{whole[at + 1 :]}\n{whole}\n", newline="")
    counts = Counts()
    file = ArchiveFile(path, "bybit", "orderbook", "bybit", "BTCUSDT", ("2025-08-21",))
    pieces = [piece for batch in bybit_dumps.DATASETS[2].pieces(file, 10, counts) for piece in batch]
    assert sum(piece.rows.height for piece in pieces if piece.table.name == "book_deltas") >= 2
