"""The catalogue of tables, docs/tables.md: each column with its unit, what a row means, what feeds it, and its traps.

python -m core.schema_docs        writes docs/tables.md

Names, types, order and keys are those of core/schema.py; a column without a meaning here is an error. What follows the
fixed columns of wide tables stands in core/wide_columns.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from core.config import ROOT
from core.schema import EVENTS, MADE_BY, TABLES, Table
from core.wide_columns import WIDE, WORDS

DOCS: Final = ROOT / "docs" / "tables.md"

_HEAD: Final = """\
# Tables

Parquet files in `data/<table>/exchange=…/symbol=…/date=YYYY-MM-DD/`; bars and features have `bars=…` before the date.
The date is the UTC day of the column that rows are sorted by. This page is generated: `python -m core.schema_docs`.

- Times are int64 nanoseconds since 1970, UTC. `exch_ns` is the venue's clock, its matching engine's where it is given;
  `recv_ns` is ours. Neither bounds the other: a local clock may run behind. What happens at time t may use rows with
  `recv_ns` ≤ t, and no others.
- Prices are quote per base. `_qty` is base, `usd` is quote, whatever the quote asset is; `_frac` are fractions, `_pct`
  per cent, `_bps` basis points.
- Sides are normalised: `taker_side` is the aggressor's, `liquidated` the position that was closed, whatever letter the
  venue sends. Open interest counts one side.
- Inverse venues (`binance_cm`, `bybit_inverse`) count contracts: their `qty` in `top_of_book`, `trades`, `book_deltas`
  and `liquidations` is contracts of 100 USD (COIN-M BTC), 10 USD (other COIN-M) or 1 USD (Bybit), and so is Bybit's
  open interest there. In `klines` base and quote are what they say.
- Null is unknown, never 0. Where a column may be null, the tables below say so.
"""

_RECV_NS: Final = ("ns", "our receipt; the table's order")
_RECV_ASSUMED: Final = ("", "`recv_ns` is not a receipt: made from `exch_ns`, in archives and refilled trades")
_DECISION_NS: Final = ("ns", "when the policy looks: what it knows was received before")
_TOUCH: Final = {
    "bid_price": ("price", "best bid"),
    "bid_qty": ("base", "quantity at it"),
    "ask_price": ("price", "best ask"),
    "ask_qty": ("base", "quantity at it"),
}

MEANINGS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "top_of_book": {
        "exch_ns": ("ns", "matching engine; assumed where the venue gives no time"),
        "recv_ns": _RECV_NS,
        "update_id": ("", "the venue's id of the book's state; rises within a stream"),
        **_TOUCH,
        "exch_assumed": ("", "`exch_ns` is `recv_ns` less the least delay of the last minute (spot bookTicker)"),
        "recv_assumed": _RECV_ASSUMED,
    },
    "trades": {
        "exch_ns": ("ns", "the trade's own time"),
        "recv_ns": _RECV_NS,
        "trade_id": ("", "as the venue writes it; Binance's count up by one, Bybit's have no order"),
        "price": ("price", ""),
        "qty": ("base", "of all fills that the row sums"),
        "taker_side": ("", "who crossed the spread"),
        "recv_assumed": _RECV_ASSUMED,
    },
    "book_deltas": {
        "exch_ns": ("ns", "matching engine; on spot the time of sending"),
        "recv_ns": _RECV_NS,
        "update_id": ("", "the last id of the message: rows of one message share it"),
        "side": ("", ""),
        "price": ("price", ""),
        "qty": ("base", "absolute, not a difference; 0: the level is gone, which may be told of a level never seen"),
        "is_snapshot": ("", "the message replaces the whole book"),
        "recv_assumed": _RECV_ASSUMED,
    },
    "liquidations": {
        "exch_ns": ("ns", "the forced order's time"),
        "recv_ns": _RECV_NS,
        "liquidated": ("", "the position that was closed"),
        "price": ("price", "average fill on Binance, bankruptcy price on Bybit"),
        "qty": ("base", "filled on Binance, executed on Bybit"),
        "recv_assumed": _RECV_ASSUMED,
    },
    "mark_prices": {
        "exch_ns": ("ns", "when the venue sent it"),
        "recv_ns": _RECV_NS,
        "mark_price": ("price", ""),
        "index_price": ("price", ""),
        "funding_rate": (
            "fraction",
            "per interval, estimate for the settlement at `next_funding_ns`; longs pay if > 0",
        ),
        "next_funding_ns": ("ns", "the interval is not always 8 h, and changes"),
        "open_interest": ("base", "one side; Binance streams none"),
        "recv_assumed": _RECV_ASSUMED,
    },
    "klines": {
        "open_ns": ("ns", "begin, included"),
        "close_ns": ("ns", "end, not included"),
        "interval": ("", "`1m`, `4h`, `1d`, `1M`: the same names on all venues"),
        "exch_ns": ("ns", "when the venue sent the closed candle"),
        "recv_ns": _RECV_NS,
        "open_price": ("price", ""),
        "high_price": ("price", ""),
        "low_price": ("price", ""),
        "close_price": ("price", ""),
        "qty": ("base", "volume"),
        "usd": ("quote", "volume"),
        "trade_count": ("", "Bybit sends none"),
        "taker_buy_qty": ("base", "volume of buying takers; Bybit sends none"),
        "taker_buy_usd": ("quote", "the same"),
        "recv_assumed": _RECV_ASSUMED,
    },
    "gaps": {
        "stream": ("", "the table that lacks rows"),
        "from_ns": ("ns", "receipt of the last good message before"),
        "to_ns": ("ns", "receipt from which on nothing is missing"),
        "reason": ("", "what was noticed, with ids where there are some"),
        "mended": ("", "of trades: all that was missed is there now; else: nothing after `to_ns` depends on it"),
        "told_ns": ("ns", "when it became known: at `to_ns`, or later where a silence had to be noticed first"),
    },
    "signals": {
        "name": ("", "docs/signals.md"),
        "time_ns": ("ns", "what the value is of"),
        "value": ("see name", ""),
        "resolution": ("", "`5m`, `1h`, `settlement`"),
        "known_ns": ("ns", "when it could be used"),
    },
    "options": {
        "exch_ns": ("ns", ""),
        "recv_ns": _RECV_NS,
        "instrument": ("", "as the venue names it"),
        "option_type": ("", ""),
        "strike_price": ("quote", ""),
        "expiry_ns": ("ns", ""),
        "bid_price": ("venue's", ""),
        "ask_price": ("venue's", ""),
        "bid_qty": ("contracts", ""),
        "ask_qty": ("contracts", ""),
        "bid_iv_pct": ("per cent", "implied volatility, a year"),
        "ask_iv_pct": ("per cent", ""),
        "mark_iv_pct": ("per cent", ""),
        "mark_price": ("venue's", ""),
        "underlying_index": ("", "a listed future, or a synthetic one"),
        "underlying_price": ("quote", ""),
        "open_interest": ("contracts", ""),
        "last_price": ("venue's", ""),
        "delta": ("", ""),
        "gamma": ("", ""),
        "vega": ("", ""),
        "theta": ("", "a day"),
        "rho": ("", ""),
        "recv_assumed": _RECV_ASSUMED,
    },
    "quality": {"stream": ("", "the table that is judged")},
    "bars": {
        "open_ns": ("ns", "begin, included"),
        "close_ns": ("ns", "end, not included; the bar is known from here on"),
        "bar_index": ("", "number on its clock, rising: of time bars `open_ns` over their length"),
    },
    "features": {"decision_ns": _DECISION_NS},
    "labels": {"decision_ns": _DECISION_NS},
    "scores": {"decision_ns": _DECISION_NS, "fold": ("", "-1: hold-out; from 0 on: walk-forward blocks")},
    "fills": {"decision_ns": _DECISION_NS},
}
"""(unit, meaning) of each fixed column."""

FED_BY: Final[dict[str, dict[str, str]]] = {
    "top_of_book": {
        "Binance USD-M, COIN-M, spot": "`<symbol>@bookTicker`; else the rebuilt book",
        "Bybit": "`orderbook.1.<symbol>`; else the rebuilt book",
    },
    "trades": {
        "Binance USD-M, COIN-M, spot": "`<symbol>@aggTrade`; `@trade` from recordings that have it in its place",
        "Bybit": "`publicTrade.<symbol>`",
    },
    "book_deltas": {
        "Binance USD-M, COIN-M, spot": "`<symbol>@depth`, REST `depth`; with `capture.partial_depth` `@depth5|10|20`",
        "Bybit": "`orderbook.50|200|1000.<symbol>`",
    },
    "liquidations": {
        "Binance USD-M, COIN-M": "`<symbol>@forceOrder`",
        "Bybit linear, inverse": "`allLiquidation.<symbol>`",
    },
    "mark_prices": {
        "Binance USD-M, COIN-M": "`<symbol>@markPrice@1s`",
        "Bybit linear, inverse": "`tickers.<symbol>`",
    },
    "klines": {
        "Binance USD-M, COIN-M, spot": "`<symbol>@kline_<interval>`, with `capture.klines`",
        "Bybit": "`kline.<interval>.<symbol>`, with `capture.klines`",
    },
}
"""Which live streams make the rows. Archives: ingest/archives."""

TRAPS: Final[dict[str, str]] = {
    "top_of_book": """\
- Spot bookTicker has no time at all: `exch_ns` is assumed, and no latency can be read from it.
- Retail-price-improvement orders stand in neither best prices nor depth on Binance (since 2025-11-18) and Bybit: a
  trade may print inside the spread.
- Bybit sends the same best prices again after 3 s without a change: those are counted, not told.
- All-market bookTicker streams come each 5 s only; capture asks for each symbol's own.
""",
    "trades": """\
- A Binance aggTrade sums the fills of one taker direction at one price (futures: within 100 ms). Its count is not
  the number of trades, and its quantity holds retail-price-improvement trades.
- Binance leaves insurance-fund and ADL trades out; Bybit's block trades, agreed off the book, are counted and left
  out.
- Trades that a stream left out and REST brought have `recv_assumed`: do not measure latency with them.
- Bybit's ids are no sequence: what was lost while a connection was down cannot be seen from them, the gap can.
""",
    "book_deltas": """\
- Order of receipt is not order of application: changes that came before their REST snapshot may belong after it
  (ingest/book_rebuild.py puts them right).
- On futures ids are shared by all symbols: `update_id` jumps, and a jump is no loss.
- Levels beyond a 1,000-level snapshot that never change stay invisible.
- Partial depth is one snapshot after the other: levels below the best 5, 10 or 20 are unknown, not empty.
- Bybit's update 1 is a snapshot after a restart of theirs.
""",
    "liquidations": """\
- Binance sends at most one per symbol and second: a sample, whose sums undercount most in cascades. Until
  2026-04-14 it was the latest of the second, since then the largest: a break in its distribution.
- Bybit sends all, but at the bankruptcy price, which is not where they filled.
- So never add the two without saying so.
- The side is the position's: Binance sends the forced order's (SELL closes a long), Bybit the position's (Buy is a
  long).
""",
    "mark_prices": """\
- `funding_rate` is an estimate until the settlement. What was paid is a signal (docs/signals.md).
- Bybit's rows repeat what did not change; its open interest counts both sides and is halved, unless the one-sided
  figure comes with it.
- Delivery contracts have neither index nor rate.
""",
    "klines": """\
- Closed candles alone; where one is missing, `gaps` says why if capture knows.
""",
    "gaps": """\
- A hole in trade ids is written as it is met, and once more, `mended`, when REST has brought all of it: rows with the
  same stream, from_ns and to_ns are one gap, open unless one of them is mended (core/gaps.py). Of a hole that was
  filled in part the first row is mended too, and a row of its own tells what still lacks.
- Bars leave out what was fetched afterwards: they are what who acts at once has seen. So has the bar of `told_ns` the
  gap, and not that of `to_ns`; what is missing is missing from `from_ns` to `to_ns`.
- Files written before 2026-11-21 have no `told_ns`: here it is read as `to_ns`, which it mostly is. Other readers of
  old and new files together need their option for columns that some lack (DuckDB: `union_by_name = true`), or
  `python run_pipeline.py compact`, after which every file has it.
- A clock that was set is a gap of all streams: times on its two sides cannot be compared.
- A frame that did not decode is a gap from the last good message to it; where ids are in sequence it is closed by
  what the next message shows, which is a gap of its own.
""",
}


def page() -> str:
    """The text of docs/tables.md. Raises KeyError for a column without a meaning."""
    return "\n".join([_HEAD, *_index(), *(line for table in TABLES for line in _section(table))]) + "\n"


def _index() -> Iterator[str]:
    yield "| table | made by | rows |"
    yield "| --- | --- | --- |"
    for table in TABLES:
        rows = table.about.partition(". ")[0].rstrip(".")
        yield f"| [`{table.name}`](#{table.name}) | `{MADE_BY[table.name]}` | {rows} |"
    yield ""


def _section(table: Table) -> Iterator[str]:
    yield f"## {table.name}\n"
    yield f"{table.about}\n"
    ordered = ", ".join(f"`{name}`" for name in table.order)
    unique = f"; unique by {', '.join(f'`{name}`' for name in table.key)}" if table.key else ""
    yield f"Sorted by {ordered}{unique}.\n"
    yield "| column | type | unit | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, dtype in table.columns.items():
        unit, meaning = MEANINGS[table.name][name]
        null = "may be null" if name in table.nullable else ""
        yield f"| `{name}` | {_type(dtype)} | {unit} | {'; '.join(part for part in (meaning, null) if part)} |"
    for name, kind, unit, meaning in WIDE.get(table.name, ()):
        yield f"| `{name}` | {kind} | {unit} | {meaning} |"
    yield ""
    if table.name in WORDS:
        yield f"{WORDS[table.name]}\n"
    if table.name in FED_BY:
        yield "Live: " + "; ".join(f"{venue}: {stream}" for venue, stream in FED_BY[table.name].items()) + ".\n"
    if table.name in TRAPS:
        yield TRAPS[table.name]


def _type(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Enum):
        return " \\| ".join(f"`{name}`" for name in dtype.categories)
    return {pl.Int64: "int64", pl.Float64: "float64", pl.String: "text", pl.Boolean: "flag"}[type(dtype)]


def write(path: Path = DOCS) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(page())


if __name__ == "__main__":
    write()
    print(f"{DOCS.relative_to(ROOT)}: {len(TABLES)} tables, {len(EVENTS)} of events")
