"""The polled and derived series described from their own declarations: docs/signals.md.

python ingest/signal_docs.py        writes docs/signals.md
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Iterable, Sequence
from typing import Final

from core.config import ROOT
from core.polling import Collector
from ingest.declarations import built_in

DOCS: Final = ROOT / "docs" / "signals.md"
_HEAD: Final = """\
# Signals

Slow series, polled by `python run_pipeline.py poll` into `data/signals/exchange=…/symbol=…/date=…`, the date being the
UTC day of `time_ns`. This page is generated: `python ingest/signal_docs.py`.

```
python run_pipeline.py poll --source live --data-dir mine                       # what is due, once, as from cron
python run_pipeline.py poll --source live --data-dir mine --duration forever    # or 12h: goes on, each on its clock
```

A collector that brings nothing at all, because it is refused or its answers cannot be read, fails the run (exit code 1,
with its name and the reason); what the others gave is stored. Signals of the simulated exchange and of the venues never
mix in one data directory.

| column | meaning |
| --- | --- |
| `name` | with the asset at its end: `oi_btc` is of BTCUSDT, BTCPERP and BTCUSD alike; partitions tell them apart |
| `time_ns` | what the value is of: the venue's own stamp, the end of the hour for `*_1h` |
| `value` | in the unit below |
| `resolution` | `5m`, `1h`, …; `settlement` for what happens once per funding |
| `known_ns` | when it could be used, and the only time to join by |

**Revisions.** A venue that changes a value adds a row with a later `known_ns`; one that repeats it adds none. The last
12 intervals are asked for again each time, so that changes are seen.

**What was known.** `known_ns` is the time of receipt. Values that were fetched long after they were new (the first 30
days of a new series) count as known at `time_ns`, plus their resolution, plus `poll.assumed_lag_s`; so do those of
archives, with `backfill`'s own lag. Whether a venue revised them meanwhile cannot be known. In what is missed while no
poll runs, `known_ns` is when it was fetched. What is derived is known with the last of what it is made of; what changes
a derived value, and each hour of liquidations after the first history of them, is known when it was derived.

```python
from ingest.signals import as_of, as_of_each, read_signal

rows = read_signal(root, "oi_btc", "binance_um:BTCUSDT")
as_of(rows, now_ns)                  # the series as it stood at a time
as_of_each(rows, decision_ns)        # the newest value known at each of many times
```

**Venues.** Each series is per exchange. Open interest is one-sided everywhere: Bybit counts both sides and is halved,
unless it gives the one-sided figure. Funding rates are fractions per interval, whose length venues change; positive:
longs pay shorts. `bybit_inverse` counts contracts of one dollar: `oi_usd_*` is their number, `oi_*` their worth in the
base asset at the mark price, sampled when polled. Predicted funding, premium and, on Bybit, basis and `oi_usd_*` are
samples of the moment and have no history. Whether `5m` values of Binance are stamped with the begin or the end of
their interval is not documented: join by `known_ns`.

**Totals** lie in `exchange=all`: in `symbol=BTC` over the polled instruments of an asset, in `symbol=ALL` over all.
They exist where every part has a value, and are known once each has one at their time or after it. Another list of
symbols is another total: it changes the values of the past, from when it was derived on.

**Liquidations** are sums over our own capture, by the hour of receipt. Binance publishes at most one per symbol and
second, a sample that counts least in cascades (which one it is changed on 2026-04-14); Bybit publishes all, at the
bankruptcy price. `liq_coverage_*` is the share of the hour's minutes in which the feed worked, gaps taken off: sums of
an hour with less than 1 are too small. `*_total_*` adds the two kinds and is a lower bound; never compare it across
another list of venues. Binance COIN-M is left out: the size of its contracts is not known here.
"""
_OWN: Final = """\
## Your own collector

In `pipeline.toml`; every key stands in `core/polling.py`, examples in `ingest/collectors.toml`. A mistake is told with
the path of its key. One with a name from there takes its place; `poll.only` chooses.

```toml
[poll.providers.llama]
host = "https://stablecoins.llama.fi"
requests = 30                        # at most, in any `per_s` seconds
per_s = 60

[poll.collectors.usdt_supply]
provider = "llama"
path = "/stablecoincharts/all"
params = { stablecoin = 1 }
symbols = ["ALL"]                    # or none, and exchange = "binance_um": those of `symbols`
time = "date"                        # where a row has its time, and in what unit
time_unit = "s"
resolution = "1d"
every = "1h"
series = [{ name = "stablecoin_supply_usdt", fields = [{ path = "totalCirculating.peggedUSD" }], above = 0 }]
```

A value is the number at `path`, divided by the one at `per`, times `scale`, plus `plus`; of several fields the first
that the row has. `history` says how the past is asked for, in windows. How far each collector is stored is noted in
`data/poll.json`: without that file the history is asked for again, and what is stored stays. Beside
it lie `poll_underived.json` (what is stored and was not derived from yet) and `poll_spent.json` (requests of the last
five minutes, which count against the next run's budgets).

## Events

`logs/signal_events-DATE.jsonl` has a line for each oddity: `range` (at or beyond `above` or `below`), `jump` (a change
of more than `poll.jump_mads` robust standard deviations), `stale` and `fresh` (no value for `poll.stale_intervals`),
`unreadable` (a time more than an interval ahead is, too, and not stored), `refused`, `unreachable`, `circuit_open`,
`circuit_closed`. Odd values are stored all the same.
"""
_FEATURE: Final = """\
## As a feature

Any feature may read a series of its own symbol, by its name without the asset; the set `positioning` has ready ones:

```toml
[features]
sets = ["tob", "flow", "positioning"]

[features.mine]
crowd = "(coalesce (log signal_ls_ratio_global) 0)"
crowd_of_a_day = "(coalesce (signal_ls_ratio_global (zscore_288 value)) 0)"   # windows inside count values
interest_1h = "(coalesce (signal_oi (delta_12 (log value))) 0)"
```

```
python run_pipeline.py poll bars features labels train --source live --data-dir mine
```

A row sees a value from `known_ns` + `signals.delay_s` (30 s) on and until it is `signals.stale_intervals` (6) of its
intervals old, in history and in the live runner alike; before and after it is not known. Keep a poll running beside the
runner: `poll --duration forever`. Grammar and rules: [language.md](language.md).
"""
DERIVED: Final = (
    (
        "funding_velocity_{asset}",
        "fraction per interval, per hour",
        "change of the settled rate to the last settlement",
    ),
    ("oi_total_{asset}", "base", "`exchange=all`: sum of `oi_{asset}` over the polled instruments, each five minutes"),
    ("oi_total", "quote", "`exchange=all/symbol=ALL`: sum of `oi_usd_*` over all polled instruments"),
    ("liq_long_{asset}_1h", "quote", "longs that were liquidated in the hour up to `time_ns`, price times quantity"),
    ("liq_short_{asset}_1h", "quote", "shorts that were liquidated in that hour"),
    ("liq_ratio_{asset}_1h", "fraction", "long / (long + short); no row where both are 0"),
    ("liq_coverage_{asset}_1h", "fraction", "share of the hour's minutes in which our capture of the feed worked"),
    ("liq_long_total_{asset}_1h", "quote", "`exchange=all`: sum over the instruments of `symbols`, in common hours"),
    ("liq_short_total_{asset}_1h", "quote", "the same of shorts"),
    ("liq_ratio_total_{asset}_1h", "fraction", "long / (long + short) of these sums"),
    ("liq_coverage_total_{asset}_1h", "fraction", "the least coverage among the instruments"),
)


def polled_rows() -> list[tuple[str, ...]]:
    """Name, exchange, unit, resolution, request, meaning of every declared series."""
    rows = [
        (f"`{series.name}`", where(one), series.unit, one.resolution, f"`{one.path}`, every {one.every}", series.about)
        for one in built_in().collectors.values()
        for series in one.series
    ]
    return sorted(rows)


def where(collector: Collector) -> str:
    return collector.exchange or collector.provider


def page() -> str:
    """The text of docs/signals.md."""
    blocks = [
        _HEAD,
        "## Polled\n",
        *_table(("name", "exchange", "unit", "resolution", "request", "meaning"), polled_rows()),
        "\n## Derived after each poll\n",
        *_table(("name", "unit", "meaning"), [(f"`{name}`", unit, about) for name, unit, about in DERIVED]),
        "",
        _FEATURE,
        _OWN,
    ]
    return "\n".join(blocks)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    DOCS.parent.mkdir(exist_ok=True)
    DOCS.write_text(page())
    print(f"wrote {DOCS}")
