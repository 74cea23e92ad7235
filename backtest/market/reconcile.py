"""What a capture holds, against the market that it captured: the account of each stream.

Between its first and its last captured row every frame of a stream must be a row, or lie in a stretch that `gaps`
names. A missing frame counts as told if a gap of its stream overlaps the time between the captured rows before and
after it, so that no clock is compared with another's. Rows that were fetched later (`recv_assumed`) do not close a
hole: it was one when it happened, and must be told too.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from backtest.market.tape import Instrument, Rows, Tape
from backtest.market.wire import bybit_trade_id
from core.gaps import settled
from core.schema import BOOK_DELTAS, GAPS, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES, Table
from core.store import partitions, read
from core.units import NS_PER_MS

Key = tuple[Any, ...]


class Account(NamedTuple):
    """One stream's rows. `holes` are runs of missing frames; `untold` of them, no gap speaks. `lost` and `refilled` are
    frames. `extra` rows are of no frame, `doubled` are rows that stand twice.
    """

    venue: str
    symbol: str
    table: str
    published: int = 0
    captured: int = 0
    refilled: int = 0
    lost: int = 0
    holes: int = 0
    untold: int = 0
    untold_frames: tuple[Key, ...] = ()
    extra: int = 0
    doubled: int = 0
    gaps: int = 0


class _Stream(NamedTuple):
    """How a table's rows are named, on the tape and on disk."""

    table: Table
    keys: Callable[[Tape, Rows], list[Key]]
    rows: Callable[[Tape], Rows]
    columns: tuple[str, ...]
    whole: tuple[str, ...] = ()
    """What tells a row from its double, if it is more than `columns`."""
    state: tuple[str, ...] = ()
    """What a subscription begins with is the last published state under a new time: no row of its own frame."""


def _plain(*columns: str) -> Callable[[Tape, Rows], list[Key]]:
    return lambda tape, rows: list(zip(*(rows[column].tolist() for column in columns), strict=True))


def _trade_keys(tape: Tape, rows: Rows) -> list[Key]:
    name = bybit_trade_id if tape.instrument.venue == "bybit" else str
    return [(name(number),) for number in rows["trade_id"].tolist()]


def _liquidation_keys(tape: Tape, rows: Rows) -> list[Key]:
    sides = np.where(rows["liquidated"] > 0, "long", "short").tolist()
    return list(zip(rows["exch_ns"].tolist(), sides, rows["price"].tolist(), rows["qty"].tolist(), strict=True))


_QUOTE: Final = ("exch_ns", "bid_price", "bid_qty", "ask_price", "ask_qty")
"""Not the update id: a restart of the venue gives new ones."""
_MARK: Final = ("mark_price", "index_price", "funding_rate", "open_interest")
_STREAMS: Final = (
    _Stream(TOP_OF_BOOK, _plain(*_QUOTE), lambda tape: tape.quotes, _QUOTE, ("update_id", *_QUOTE), _QUOTE[1:]),
    _Stream(TRADES, _trade_keys, lambda tape: tape.trades, ("trade_id",)),
    _Stream(
        BOOK_DELTAS, _plain("exch_ns"), lambda tape: tape.depth, ("exch_ns",), ("exch_ns", "update_id", "side", "price")
    ),
    _Stream(LIQUIDATIONS, _liquidation_keys, lambda tape: tape.liquidations, ("exch_ns", "liquidated", "price", "qty")),
    _Stream(
        MARK_PRICES,
        _plain("exch_ns"),
        lambda tape: tape.marks,
        ("exch_ns",),
        ("exch_ns", *_MARK),  # a subscription's first message may be of the millisecond of the one that follows
        _MARK[:2],
    ),
)


NO_SEQUENCE: Final = {
    ("binance_um", TOP_OF_BOOK.name),
    ("binance_um", MARK_PRICES.name),
    ("binance_um", LIQUIDATIONS.name),
    ("bybit", TOP_OF_BOOK.name),
    ("bybit", TRADES.name),
    ("bybit", MARK_PRICES.name),
    ("bybit", LIQUIDATIONS.name),
}
"""Streams whose messages say nothing of the one before: a single one that does not come leaves no trace."""


def accounts(root: Path, chunks: Iterable[Sequence[Tape]]) -> list[Account]:
    """The account of each stream of the market; `chunks` are all that it published."""
    by_name: dict[str, list[Tape]] = {}
    for tapes in list(chunks):
        for tape in tapes:
            by_name.setdefault(tape.instrument.name, []).append(tape)
    return [_account(root, tapes, stream) for tapes in by_name.values() for stream in _STREAMS]


def unexplained(account: Account, ledger: Iterable[Mapping[str, Any]]) -> list[Key]:
    """The untold frames that a client could have known of: all but those that the ledger has as dropped, or as sent
    after their successor, of a stream whose messages are not in sequence (NO_SEQUENCE).
    """
    if (account.venue, account.table) not in NO_SEQUENCE:
        return list(account.untold_frames)
    silent = {
        (row["last_id"],) if account.table == TRADES.name else (row["exch_ms"] * NS_PER_MS,)
        for row in ledger
        if row["fault"] in ("drop", "reorder") and row["symbol"] == account.symbol
    }
    return [key for key in account.untold_frames if key[:1] not in silent]


def _account(root: Path, tapes: list[Tape], stream: _Stream) -> Account:
    of, table = tapes[0].instrument, stream.table
    found, gaps = _captured(root, of, table), _captured(root, of, GAPS)
    gaps = gaps.filter(pl.col("stream") == table.name)
    account = Account(of.venue, of.symbol, table.name, gaps=settled(gaps).height)
    held: dict[Key, tuple[int, bool]] = {}
    if table is BOOK_DELTAS:
        held = _held_by_snapshots(found, tapes) | _held_by_first_snapshots(found, tapes, gaps["to_ns"].to_list())
        found = found.filter(~pl.col("is_snapshot"))
    doubles = _doubles(found, stream, gaps)
    received = {row[:-2]: row[-2:] for row in found.select(*stream.columns, "recv_ns", "recv_assumed").iter_rows()}
    received = held | received
    published = [key for tape in tapes for key in stream.keys(tape, stream.rows(tape))]
    extra = _extra(found, stream, set(published), tapes)
    account = account._replace(doubled=doubles, extra=extra, captured=len(received))
    return _with_holes(account, published, received, gaps)


def _held_by_snapshots(found: pl.DataFrame, tapes: list[Tape]) -> dict[Key, tuple[int, bool]]:
    """The changes after which a captured snapshot was taken: the book is known there, with the change or without it."""
    taken = dict(found.filter("is_snapshot").select("update_id", "recv_ns").iter_rows())
    pairs = (pair for tape in tapes for pair in tape.depth[["exch_ns", "update_id"]].tolist())
    return {(exch_ns,): (taken[update_id], False) for exch_ns, update_id in pairs if update_id in taken}


def _held_by_first_snapshots(
    found: pl.DataFrame, tapes: list[Tape], resumed_ns: Sequence[int]
) -> dict[Key, tuple[int, bool]]:
    """The changes between the last one before a snapshot and its time, where the book was not known yet when that came:
    nothing was missed of it. `resumed_ns` are the ends of gaps, from which on it is unknown until a snapshot.
    """
    published = np.concatenate([tape.depth["exch_ns"] for tape in tapes])
    held: dict[Key, tuple[int, bool]] = {}
    before_ns = known_ns = 0  # receipts of the last change and of the last snapshot
    since_ns = 0  # the venue's time of that change
    for recv_ns, exch_ns, is_snapshot in (
        found.select("recv_ns", "exch_ns", "is_snapshot").unique(maintain_order=True).rows()
    ):
        if not is_snapshot:
            before_ns, since_ns = recv_ns, exch_ns
            continue
        is_known = known_ns and not any(known_ns < end_ns <= before_ns for end_ns in resumed_ns)
        if since_ns and not is_known:
            between = published[(published > since_ns) & (published <= exch_ns)].tolist()
            held |= {(change_ns,): (recv_ns, False) for change_ns in between}
        known_ns = recv_ns
    return held


def _doubles(found: pl.DataFrame, stream: _Stream, gaps: pl.DataFrame) -> int:
    """Rows that stand twice, but for a state that a new process was told again: it cannot know that we had it."""
    again = found.sort("recv_ns").filter(pl.struct(stream.whole or stream.columns).is_duplicated())
    stops = gaps.filter(pl.col("reason").str.contains("not running")).select("from_ns", "to_ns").rows()
    last_ns: dict[Key, int] = {}
    doubles = 0
    for *key, recv_ns in again.select(*(stream.whole or stream.columns), "recv_ns").iter_rows():
        before_ns, last_ns[tuple(key)] = last_ns.get(tuple(key)), recv_ns
        told_again = before_ns and any(before_ns <= from_ns and to_ns <= recv_ns for from_ns, to_ns in stops)
        doubles += before_ns is not None and not told_again
    return doubles


def _extra(found: pl.DataFrame, stream: _Stream, published: set[Key], tapes: list[Tape]) -> int:
    """The rows that no frame explains."""
    states = {key for tape in tapes if stream.state for key in _plain(*stream.state)(tape, stream.rows(tape))}
    keys, values = found.select(stream.columns).rows(), found.select(stream.state).rows() or [()] * found.height
    rows = set(zip(keys, values, strict=True))
    return sum(key not in published and state not in states for key, state in rows)


def _with_holes(
    account: Account, published: list[Key], received: dict[Key, tuple[int, bool]], gaps: pl.DataFrame
) -> Account:
    """The account with what is missing between the first and the last frame that were captured as they came."""
    live = [place for place, key in enumerate(published) if key in received and not received[key][1]]
    if not live:
        return account
    told = gaps.select("from_ns", "to_ns").rows()
    holes, untold, unmended = 0, [], 0
    for before, after in itertools.pairwise(live):
        missing = published[before + 1 : after]
        from_ns, to_ns = received[published[before]][0], received[published[after]][0]
        holes += bool(missing)
        unmended += sum(key not in received for key in missing)
        if missing and not any(start < to_ns and stop > from_ns for start, stop in told):
            untold.append(missing)
    return account._replace(
        published=live[-1] - live[0] + 1,
        lost=unmended,
        refilled=sum(assumed for _, assumed in received.values()),
        holes=holes,
        untold=len(untold),
        untold_frames=tuple(itertools.chain.from_iterable(untold)),
    )


def _captured(root: Path, of: Instrument, table: Table) -> pl.DataFrame:
    """All rows of a table, of all days; a frame without rows if there is none."""
    frames = [read(root, part) for part in partitions(root, table, [of.name])]
    return pl.concat(frames) if frames else pl.DataFrame(schema=table.columns)
