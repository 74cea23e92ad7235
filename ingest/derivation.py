"""What is derived after each poll, from the stored signals and from our own capture: reads, computes, merges."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from core.gaps import unmended
from core.schema import LIQUIDATIONS, MARK_PRICES, SIGNALS
from core.store import Partition, date_of_ns, read, read_between
from core.units import NS_PER_DAY, NS_PER_MINUTE
from ingest.collectors import Target
from ingest.derived_signals import (
    Ints,
    has_notional,
    hourly_liquidations,
    liquidations_over_venues,
    notional,
    total,
    unstored,
    velocity,
)
from ingest.signals import ALL, asset_of, days_of, merge_signals, read_signal
from ingest.stored_books import gaps_between
from ingest.underived import News

_BEFORE_NS: Final = 10 * NS_PER_DAY
"""How far behind a new value the values lie that it is compared with: one settlement, with an outage between."""
_NONE: Final = pl.DataFrame(schema=SIGNALS.columns)


def derive(root: Path, news: News, targets: Sequence[Target], now_ns: int) -> News:
    """Velocities and totals that follow from what is new; the derived rows that are new themselves.

    What changes a value that was derived before is known at `now_ns`.
    """
    found: News = {}
    for (exchange, symbol), rows in news.items():
        asset = asset_of(symbol)
        since_ns = _earliest([rows]).get(f"funding_rate_{asset}")
        if since_ns is not None:
            rates = read_signal(root, f"funding_rate_{asset}", f"{exchange}:{symbol}", from_ns=since_ns - _BEFORE_NS)
            _merge(root, found, exchange, symbol, velocity(asset, rates), now_ns)
    _totals(root, news, targets, found, now_ns)
    return found


def _totals(root: Path, news: News, targets: Sequence[Target], found: News, now_ns: int) -> None:
    """`oi_total_{asset}` over the instruments of an asset, `oi_total` in quote over all of them."""
    holders: dict[str, set[str]] = {}
    for target in targets:
        for name in target.series:
            holders.setdefault(name, set()).add(f"{target.exchange}:{target.symbol}")
    assets = {asset_of(target.symbol) for target in targets}
    since = _earliest(news.values())
    for asset in sorted(assets):
        over = {f"oi_{asset}": holders.get(f"oi_{asset}", set())}
        _add_total(root, since, found, f"oi_total_{asset}", asset.upper(), over, now_ns)
    in_quote = {f"oi_usd_{asset}": holders.get(f"oi_usd_{asset}", set()) for asset in assets}
    _add_total(root, since, found, "oi_total", "ALL", in_quote, now_ns)


def _add_total(
    root: Path, since: Mapping[str, int], found: News, name: str, symbol: str, over: Mapping[str, set[str]], now_ns: int
) -> None:
    """A total over series and their instruments, if any of these has news; `since` is the time of the first."""
    since_ns = min((since[part] for part in over if part in since), default=None)
    if since_ns is not None:
        parts = [
            read_signal(root, part, instrument, from_ns=since_ns - NS_PER_DAY)
            for part, instruments in over.items()
            for instrument in sorted(instruments)
        ]
        _merge(root, found, ALL, symbol, total(name, parts), now_ns)


def _earliest(news: Iterable[pl.DataFrame]) -> dict[str, int]:
    """The earliest time by series."""
    rows = pl.concat([_NONE, *news]).group_by("name").agg(pl.col("time_ns").min())
    return dict(rows.iter_rows())


def _merge(
    root: Path, found: News, exchange: str, symbol: str, rows: pl.DataFrame, now_ns: int, new_from_ns: int = 0
) -> None:
    """Store what `rows` say that is not stored yet, and note it in `found`."""
    news = unstored(rows, _stored(root, f"{exchange}:{symbol}", rows), now_ns, new_from_ns)
    if news.height and (added := merge_signals(root, exchange, symbol, news)).height:
        found[exchange, symbol] = pl.concat([found.get((exchange, symbol), _NONE), added])


def derive_liquidations(root: Path, instruments: Iterable[str], lag_ns: int, now_ns: int) -> News:
    """Hourly liquidations of what we captured of these `venue:SYMBOL`s, and their totals by asset.

    Days are made again from the last derived one on; the first time, all. That history counts as known `lag_ns` after
    each hour; later hours are known at `now_ns`, which is late where no poll ran.
    """
    found: News = {}
    by_asset: dict[str, list[str]] = {}
    for instrument in sorted(instruments):
        exchange, _, symbol = instrument.partition(":")
        asset = asset_of(symbol)
        if has_notional(exchange) and _derive_hours(root, found, exchange, symbol, lag_ns, now_ns):
            by_asset.setdefault(asset, []).append(instrument)
    for asset, holders in by_asset.items():
        _derive_hours_over_venues(root, found, asset, holders, now_ns)
    return found


def _derive_hours(root: Path, found: News, exchange: str, symbol: str, lag_ns: int, now_ns: int) -> bool:
    """True if anything of this instrument's feed was captured."""
    asset, instrument = asset_of(symbol), f"{exchange}:{symbol}"
    days = sorted({part.date for table in (LIQUIDATIONS, MARK_PRICES) for part in days_of(root, table, instrument)})
    newest_ns = _newest(root, f"liq_coverage_{asset}_1h", instrument) if days else None
    new_from_ns = 0 if newest_ns is None else now_ns
    for date in days:
        part = Partition(LIQUIDATIONS.name, exchange, symbol, date)
        if newest_ns is None or part.starts_ns + 2 * NS_PER_DAY > newest_ns:
            rows = _hours_of_day(root, part, asset, lag_ns, now_ns)
            _merge(root, found, exchange, symbol, rows, now_ns, new_from_ns)
    return bool(days)


def _newest(root: Path, name: str, instrument: str) -> int | None:
    """The newest time of a series, found without reading what is older."""
    for part in reversed(days_of(root, SIGNALS, instrument)):
        times = read(root, part).filter(pl.col("name") == name)["time_ns"]
        if not times.is_empty():
            return int(times.to_numpy().max())
    return None


def _hours_of_day(root: Path, part: Partition, asset: str, lag_ns: int, now_ns: int) -> pl.DataFrame:
    columns = ["recv_ns", "liquidated", "price", "qty"]
    liquidations = read_between(root, part, columns, part.starts_ns, part.starts_ns + NS_PER_DAY)
    return hourly_liquidations(
        asset, notional(part.exchange), liquidations, _minutes_covered(root, part), lag_ns, now_ns
    )


def _minutes_covered(root: Path, part: Partition) -> Ints:
    """Minutes of a day in which the liquidations' connection worked: mark prices come on it each second or so.

    A minute that a gap of the liquidations touches does not count.
    """
    minutes: set[int] = set()
    for table in (MARK_PRICES, LIQUIDATIONS):
        times = read_between(root, part.of(table), ["recv_ns"], part.starts_ns, part.starts_ns + NS_PER_DAY)
        minutes |= set((times["recv_ns"].to_numpy() // NS_PER_MINUTE).tolist())
    end_ns = part.starts_ns + NS_PER_DAY
    gaps = gaps_between(root, part.instrument, part.starts_ns, end_ns)
    open_gaps = unmended(gaps).filter(pl.col("stream") == LIQUIDATIONS.name)
    for from_ns, to_ns in open_gaps.select("from_ns", "to_ns").iter_rows():
        first_ns, last_ns = max(from_ns, part.starts_ns), min(to_ns, end_ns - 1)
        minutes -= set(range(first_ns // NS_PER_MINUTE, last_ns // NS_PER_MINUTE + 1))
    return np.array(sorted(minutes), np.int64)


def _stored(root: Path, instrument: str, rows: pl.DataFrame) -> pl.DataFrame:
    """What the signals hold of the times of some rows."""
    if rows.is_empty():
        return _NONE
    times = rows["time_ns"].to_numpy()
    return _signals_between(root, instrument, int(times.min()), int(times.max()))


def _signals_between(root: Path, instrument: str, from_ns: int, to_ns: int) -> pl.DataFrame:
    """All signals of an instrument with from_ns <= time_ns <= to_ns."""
    wanted = pl.col("time_ns").is_between(from_ns, to_ns)
    days = days_of(root, SIGNALS, instrument, date_of_ns(from_ns), date_of_ns(to_ns))
    return pl.concat([_NONE, *(read(root, part).filter(wanted) for part in days)])


def _derive_hours_over_venues(root: Path, found: News, asset: str, instruments: Sequence[str], now_ns: int) -> None:
    since = [
        int(rows["time_ns"].to_numpy().min())
        for (exchange, symbol), rows in found.items()
        if f"{exchange}:{symbol}" in instruments and rows.height
    ]
    if since:
        venues = {one: _signals_between(root, one, min(since), now_ns) for one in instruments}
        is_first = _newest(root, f"liq_coverage_total_{asset}_1h", f"{ALL}:{asset.upper()}") is None
        rows = liquidations_over_venues(asset, venues)
        _merge(root, found, ALL, asset.upper(), rows, now_ns, 0 if is_first else now_ns)
