"""Archive files as providers pack them."""

import gzip
import zipfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ingest.archives.formats import ArchiveFile, Counts, Dataset, Provider

DAY = "2024-03-29"
DAY_MS = 1_711_670_400_000
MS = 1_000_000
_DAY_LENGTH_MS = 86_400_000
UM = "data/futures/um/daily"


def zipped(path: Path, text: str | bytes) -> Path:
    """A zip that holds one member of the same base name, as Binance's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    member = path.name.removesuffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member if "." in member else f"{member}.csv", text)
    return path


def gzipped(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode() if isinstance(text, str) else text))
    return path


def plain(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def archive_file(path: Path, provider: Provider, dataset: str, instrument: str, day: str = DAY) -> ArchiveFile:
    venue, _, symbol = instrument.partition(":")
    interval = "1m" if dataset == "klines" else ""
    return ArchiveFile(path, provider, dataset, venue, symbol, (day,), interval)


def converted(dataset: Dataset, file: ArchiveFile, latency_ns: int = 0) -> tuple[dict[str, pl.DataFrame], Counts]:
    """The rows of a file by table, before sorting and writing."""
    counts = Counts()
    frames: dict[str, list[pl.DataFrame]] = {}
    for pieces in dataset.pieces(file, latency_ns, counts):
        for piece in pieces:
            frames.setdefault(piece.table.name, []).append(piece.rows)
    return {name: pl.concat(each) for name, each in frames.items()}, counts


def agg_trades(ids: Sequence[int], first_ms: int = DAY_MS, step_ms: int = 10, header: bool = True) -> str:
    """aggTrades as Binance writes them: one row per id, `step_ms` apart."""
    head = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n" if header else ""
    lines = (
        f"{number},{70_000 + number % 7}.1,0.0{1 + number % 9},{number},{number},{first_ms + at * step_ms},"
        f"{'true' if number % 2 else 'false'}\n"
        for at, number in enumerate(ids)
    )
    return head + "".join(lines)


def agg_day(folder: Path, day: int, ids: range, nested: bool = True) -> Path:
    """aggTrades of the n-th day after 2024-03-29, spread over it."""
    name = f"BTCUSDT-aggTrades-2024-03-{29 + day:02d}.zip"
    text = agg_trades(ids, DAY_MS + day * _DAY_LENGTH_MS, _DAY_LENGTH_MS // max(1, len(ids)))
    return zipped(folder / UM / "aggTrades" / "BTCUSDT" / name if nested else folder / name, text)


def book_day(folder: Path, day: int, count: int = 50) -> Path:
    header = "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n"
    times = (DAY_MS + day * _DAY_LENGTH_MS + at * _DAY_LENGTH_MS // count for at in range(count))
    lines = (f"{day * count + at},70000.0,1,70000.{1 + at % 9},2,{ms},{ms + 2}\n" for at, ms in enumerate(times))
    name = f"BTCUSDT-bookTicker-2024-03-{29 + day:02d}.zip"
    return zipped(folder / UM / "bookTicker" / "BTCUSDT" / name, header + "".join(lines))
