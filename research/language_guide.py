"""What docs/language.md says in prose, block by block in its order; the tables are made in language_docs.py."""

from typing import Final

HEAD: Final = """# The feature language

A feature is one expression over the columns of a bar. The same compiled program computes it over history and in the
live runner, with the same bits. This page is generated: `python research/language_docs.py`.

```
expression = number | name | "(" operator expression … ")" | "(" join expression ")"
operator   = a name of the table below, with "_" and a window where it takes one: sub, lag_3, mean_20, zscore_5s
window     = a count of bars (20) or a time (200ms, 5s, 1m), a whole number of bars on their clock
join       = at_ and a clock, of_ and a symbol, a cross-section, or signal_ and a slow series: at_1m, of_ETHUSDT,
             cs_rank, signal_oi; see below
name       = a letter or "_", then letters, digits and "_": a column, a definition, a feature, or signal_ and a series
```

Everything is a float64; 1 is true and 0 is false. NaN is "not known": it goes into an operator and comes out, unless
the table says otherwise, and leaves a window when its bar does. A window gives NaN until it is full. A bar with a gap
in its data (`has_gap`) gives NaN, and it and any bar that is not the next one restart all windows. Rolling statistics
divide by w.

An infinite value in a window, as of `(exp 999)`, counts where values are compared: `max` is infinite, and `min`,
`argmax`, `argmin`, `rank`, `run` and the median are what they should be. What adds values up is not finite until it has
left: moments (`std`, `zscore`, `skew`, `kurt`, `cov`, `corr`, `beta`, `autocorr`) and what costs O(w) now and then are
NaN, `sum`, `mean`, `decay` and `fracdiff` NaN or infinite. Exponential weights leave it out, and its own row is NaN.

`coalesce` and `known` cannot tell a window that is not full from what a venue did not publish. Inside a window 0 would
pass for a value: `(delta_5s (coalesce open_interest 0))` is all of it when it is told first. Around a window it makes a
feature known before its warm-up, and history and the live runner both keep such rows. So put `coalesce` around windows,
and let the other be as late: `(coalesce (delta_5s open_interest) (lag_5s 0))` is 0 where nothing was told, once 5 s of
bars were seen. The mean of what is known is `(div (sum_5s (coalesce x 0)) (sum_5s (known x)))`.

Operators marked ∞ remember everything: their bits depend on where a run began, so a day goes on from the state that
the symbol's last day saved. All others forget what has left their window, to the bit. Those with half-lives are known
after seven of them, when less than 1 % of the weight lies on what was never seen; `vpin` once its buckets were full;
`hmm` from the first bar on, by the chances of its states alone.

Your own, in `pipeline.toml`, one line each; they flow through features, training, SHAP, export and the live runner:

```toml
[features.mine]
my_signal = "(sub imbalance (mean_25 imbalance))"
my_slow = "(mean_60s my_signal)"      # may use columns, definitions, features, and your own that stand before it
```

A name has one meaning: those of columns, definitions and features of the catalogue are taken, whatever sets are chosen.

From Python, with the `.venv` of the repository. A notebook that lies anywhere else says first where that is:

```python
import sys; sys.path.insert(0, "/path/to/the/repository")  # or PYTHONPATH=/path/to/the/repository
```

```python
from research.language import compile_features

program = compile_features({"ofi_z": "(zscore_300 ofi_qty)"}, columns=["ofi_qty"], bar="200ms")
y = program.evaluate(x)  # x (n, 1) float64, or a frame with that column, of Polars or pandas: y (n, 1)
live = program.start()   # live.step(row) gives the rows of y, to the bit

saved = live.save()      # arrays for np.savez; another stream that restores them goes on as if nothing had been
program.evaluate(x, out=y)                                # over an earlier result: spares the machine fresh memory
several = program.evaluate_many([x, x], threads=2)        # symbols on threads, each from a fresh start

from research.programs.merged import evaluate_programs

other = compile_features({"late": "(lag_5 (zscore_300 ofi_qty))"}, columns=["ofi_qty"], bar="200ms")
y, late = evaluate_programs([program, other], x)          # one pass; what they share is computed once
```

Over bars of a run (`data` is the data directory), in a notebook:

```python
import polars as pl

from research.catalogue import FEATURE_COLUMNS, named_on
from research.language import compile_features

folder = "data/bars/exchange=binance_um/symbol=BTCUSDT"
bars = pl.read_parquet(f"{folder}/*/bars=time_200ms/*.parquet", hive_partitioning=False).sort("close_ns")
mine = {
    "my_signal": "(sub imbalance (mean_25 imbalance))",  # imbalance is a definition
    "edge": "micro_edge_mean_2s",                        # a feature of the catalogue, as in pipeline.toml
    "hour": "(div second_of_day 3600)",
    "ofi_z": "(zscore_60s ofi_qty)",
}
program = compile_features(mine, FEATURE_COLUMNS, bar="200ms", definitions=named_on)
y = program.evaluate(bars)                               # (bars, 4), as the stage has them
```

`named_on` gives all definitions and features of the catalogue on a clock, by name. `second_of_day` and `day` are made
of a frame's `close_ns`.

`bar_index`, a frame's column of that name or an argument, says which bar a row is, and so where bars are missing; the
column `has_gap` (one of `BAR_COLUMNS`) says where data are: windows fill anew after both. Without them any two rows are
neighbours, counted from 0.

Results do not depend on how rows are cut into batches or tiles, and after the warm-up (but for ∞) not on where a run
began: to the bit, where rows have their `bar_index`, or a stream was told that of its first (`start(bar_index=…)`).
The places where blocks and hops begin are counted by it: two runs that both count from 0 at different bars differ by
rounding, and an operator that `hops` by when it was computed. `python benchmarks/drill_mutations.py` shows which test
sees a bar of the future in which operator.

A text that is not in the language is a ValueError that shows the place:

```
unknown operator meen_20, did you mean mean?
  (sub a (meen_20 a))
          ^
```
"""

JOINS: Final = """## Other clocks, other symbols, all symbols

A join computes its operand on other bars and gives each row the value that was known by then:
"""

JOIN_ROWS: Final = (
    ("(at_1m x)", "x on the symbol's own bars of another clock: `at_5s`, `at_1h`, `at_volume_100`, `at_tick_500`, …"),
    ("(of_ETHUSDT x)", "x on another symbol's bars, of the same clock and venue; `of_bybit:ETHUSDT` names the venue"),
    ("(signal_oi x)", "x over the values of a slow series of the symbol; see below"),
)

JOIN_RULES: Final = """
```toml
[features.mine]
trend = "(mul 1e4 (log (div close_price (at_1m (mean_20m close_price)))))"      # against the mean of 20 minute bars
beta_to_btc = "(beta_300s bar_return_bps (of_BTCUSDT bar_return_bps))"
lead = "(mul 1e4 (delta_1s (of_binance_um:BTCUSDT log_mid)))"                   # what another venue did just now
standing = "(cs_rank (sum_10s signed_usd))"                                     # bought most of all symbols: 1
broad = "(at_1m (cs_mean (of_ETHUSDT (delta_5 log_mid))))"                      # joins within joins
```

- A row takes the last bar that closed at or before its own close, one that closes at the same instant included. A bar
  that is still open is never seen, so nothing that happens later can change a value.
- Bars of time hold until the next one is due: where that is missing (a silent feed), and where it had a gap, the value
  is not known. Bars of other clocks hold until the next.
- Windows inside a join count bars, or time, of the clock on which they stand; those around it count rows.
- Cross-sections compare the symbols of the run whose bars closed at the same instant, so they stand on bars of time
  (`(at_1s (cs_rank x))` elsewhere); a symbol whose x is not known does not count. They change with the list of symbols:
  run a model live on the symbols that it was trained on.
- Each distinct operand is computed once on a symbol's bars, whoever asks. The bars stage builds every clock that the
  features name, and the runner keeps the same bars; a symbol of `of_` must be among `symbols`.
- With joins a day goes on from the state that the symbol's last day saved, and where symbols are joined all of them
  are built together; one without bars that day stands as its own last day left it.

Over bars in memory:

```python
from research.catalogue import FEATURE_COLUMNS, named_on
from research.programs.panel import Panel, closed_bars
from research.programs.panel_program import compile_panel

program = compile_panel({"trend": "(sub mid (at_1m (mean_20 mid)))"}, FEATURE_COLUMNS, "time_200ms", named_on)
panel = Panel(program, ["binance_um:BTCUSDT"])
y = panel.run(lambda name, clock: closed_bars(frames[name, clock], program))  # by symbol; frames of the table `bars`
```

`python run_pipeline.py correlate` prints how the symbols' returns correlate, over several steps and from day to day.
The simulated market draws each symbol by itself: BTC and ETH are independent there, so that joins of symbols run on it
and have nothing to find. A small market to try features on (`sim.hours` is how long it lasts) is made in seconds:

```
python run_pipeline.py capture bars features --set sim.hours=0.5 --data-dir small
```
"""

SIGNALS: Final = """## Slow series

What `poll` and `backfill` keep in the table `signals` (docs/signals.md), as the row's symbol has it:

```toml
[features.mine]
crowd = "(log signal_ls_ratio_global)"                                          # the latest value that was known
crowd_of_a_day = "(signal_ls_ratio_global (zscore_288 value))"                  # 288 values of 5m: a day
surprise = "(mul 1e4 (sub signal_funding_rate_predicted signal_funding_rate))"
all_venues = "(signal_oi_total (delta_12 (log value)))"                         # a total over the polled venues
crowd_of_btc = "(of_binance_um:BTCUSDT signal_ls_ratio_global)"
open_interest_age_s = "(sub now_s (signal_oi time_s))"
```

- The name is that of the table without the asset: `oi` for `oi_btc`, `liq_long_1h` for `liq_long_btc_1h`, `oi_total`
  for the asset's total, `oi_total_all` for that of all assets. A resolution at its end, `signal_oi_5m`, tells apart
  what the table holds in several.
- A row sees a value if `known_ns` + `signals.delay_s` is at or before its close, never by `time_ns`: of these the one
  of the latest time, in the version known last. The delay is what a poll takes to write and the runner to read.
- A value older than `signals.stale_intervals` of its intervals (counted from `time_ns`, 8 h for settlements) is not
  known any more, so that an outage of the poll does not pass for a quiet market. `(coalesce signal_oi 0)` keeps rows.
- Inside stand `value` and `time_s` (what it is of, seconds since 1970) alone, and windows count values: each time once,
  a revised one in its latest version. They are filled by what the table has of before the first bar.
- Around a signal, windows count bars as ever, and it stands inside other joins as a column does.
- A poll that brings something new has those days built again whose bars could have seen it, no others.
- The runner reads the table again every 10 s where files changed. What comes too late for the batch's rule counts from
  then on, and is told.

In a notebook a panel is given the series; without any it is a ValueError, as they would pass for never known:

```python
from pathlib import Path

import polars as pl

from core.config import Config
from research.catalogue import FEATURE_COLUMNS, named_on
from research.programs.panel import Panel, closed_bars
from research.programs.panel_program import compile_panel
from research.signal_table import signal_table

crowd = {"crowd": "(coalesce (signal_ls_ratio_global (delta_12 (log value))) 0)"}
program = compile_panel(crowd, FEATURE_COLUMNS, "time_200ms", named_on)
names, clock, data = ["binance_um:BTCUSDT"], "time_200ms", Path("data").resolve()
table = signal_table(Config(data_dir=str(data)), program)
panel = Panel(program, names, signals={name: table.columns(name, program) for name in names})
files = sorted(data.glob(f"bars/exchange=binance_um/symbol=BTCUSDT/*/bars={clock}/*.parquet"))
frames = {(names[0], clock): pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])}
y = panel.run(lambda name, clock: closed_bars(frames[name, clock], program))
```
"""

CLOCKS: Final = """## Bars of other clocks

`--set bars=time_1s` changes the bars on which the features stand. The clocks:
"""

CLOCK_ROWS: Final = (
    ("time", "`time_200ms`", "every 200 ms of UTC; 100 ms to 1 d, a whole number of them in a day", "2.3.1.1"),
    ("tick", "`tick_500`", "500 trades", "2.3.1.2"),
    ("volume", "`volume_10`", "10 of the base quantity traded", "2.3.1.3"),
    ("dollar", "`dollar_1000000`", "1,000,000 of quote notional traded", "2.3.1.4"),
    ("Renko", "`renko_5`", "the mid is a whole brick of 5 bps beyond the last brick: a turn takes two", ""),
    ("range", "`range_10`", "the mid's high is 10 bps above its low, of the bar's open", ""),
    ("imbalance", "`tick_imbalance_200`, `volume_imbalance_200`, `dollar_imbalance_200`",
     "|signed flow| ≥ max(E[T] |E[b v]|, √E[T] E|v|), with b the taker's side, v 1, quantity or notional", "2.3.2.1-2"),
    ("run", "`tick_run_200`, `volume_run_200`, `dollar_run_200`",
     "the larger of bought and sold flow ≥ E[T] max(E[bought], E[sold]), flows per trade", "2.3.2.3-4"),
)  # fmt: skip

CLOCK_RULES: Final = """
Sections are those of López de Prado, "Advances in Financial Machine Learning", 2018, chapter 2. E[T], the trades of a
bar, and the mean flows per trade are exponentially weighted over the bars before, with a half-life of 10; the number in
the name is the trades of the first bar. In two things imbalance and run bars are not the book's, whose bars shrink to
one trade or grow without end: E[T] stays within a quarter and four times that number, and an imbalance must be more
than chance gathers in so many trades. Bars that are not of time end with the receipt instant in which they are full and
carry no excess over; midnight closes them short (`research/bars/bar_pass.py`).

Every bar has the mid's open, high, low and close (`open_price`, …), those of the prices traded (`trade_open_price`, …:
not known where nothing was traded; `(coalesce trade_close_price mid)`), volume by side, the definition `vwap`, and
counts of events: `quote_count`, `buy_count`, `sell_count`, `liq_count`.

Windows of your own are what you wrote: a time must be a whole number of bars, and on bars of no time only counts are
windows. Those of the catalogue and of definitions are whole seconds:

| bars | windows of the catalogue | names |
|---|---|---|
| 200 ms, 500 ms, 1 s: a second is a whole number of them | the same times | `return_bps_5s` |
| longer ones, and all of no time | the count of 200 ms bars in that time, in all sets | `return_bps_25` |

A window of one bar stays one (`return_bps_1`). One with fewer bars than its operator needs has as many as that: on bars
of 1 s `hurst_60s` is `hurst_64`. So a model belongs to the clock that it was trained on. In features of your own, names
of the catalogue and of definitions mean what they are on the bars where they stand, joins included, by either name: on
`volume_10`, `(neg return_bps_5s)` is `(neg return_bps_25)`.

`--set 'bars_also=["time_1m", "volume_10"]'` builds further clocks in the same pass, for a notebook; those that features
name in `at_` are built in any case.
"""

FITTED: Final = """## Events, and numbers that are fitted

```toml
[features]
sets = ["flow", "regime", "calendar", "fitted"]
events = ["2026-11-25T13:30:00Z", "2026-12-09T14:00-05:00"] # minutes_to_event, minutes_since_event: a day at most each
fit_until = "2026-03-01T00:00:00Z"                          # or fit_frac = 0.2: the first fifth of the bars
```

Several lists have names, and may stand in files with one time a line, relative to the repository:

```toml
[features.events]
fomc = ["2026-12-09T14:00:00-05:00"]      # minutes_to_fomc, minutes_since_fomc
cpi = "cpi.txt"                           # "2026-12-10T08:30:00-05:00  November": what follows the time is yours
```

`python run_pipeline.py bars fit features labels train` fits what must be fitted, and writes it as texts to
`data/fitted/<clock>.toml`, of which the set `fitted` is made:

- `regime_turbulent`: the probability of the liveliest of two to four regimes, filtered forward (`hmm`); of more than
  two also `regime_1`, `regime_2`, those between it and the calmest; `regime_likely`, the number of the likeliest from
  0, the calmest; `regime_entropy`, how unsure that is, from 0 to 1. Baum-Welch from several starts on volatility
  against its own quarter of an hour; how many there are, of `regime_states`, is told by the Bayesian information
  criterion, and where one explains as much, or a state is degenerate, the stage says so. `regime_inputs` are
  observations of your own, in the language.
- `fractional_bps_least`: the mid, differenced to the least order at which a unit root is rejected at 5 % (ADF). It
  remembers the level, that is its purpose: after a long move of the price its range is another, which `assess` tells
  as drift.
- `volume_unseasonal`, `volatility_unseasonal`: less the waves that the time of the day explains. They need every hour
  of the day on two days; where each was seen in three weeks at a weekend and on a day between, weekends have a level
  and waves of their own. What cannot be fitted is left out, and the stage says why.

Fits see no bar that closes after the border and no label. Decisions up to the border are left out of the features, with
a count, so nothing is trained, validated or tested where numbers were fitted. Fitted features are the same for all
symbols and end in the model's manifest like any other. `nightly` keeps the numbers; to renew them, run `fit`.

A filter of your own, `(hmm odds stay_0 stay_1)`, takes the log likelihood ratio of state 1 to state 0: densities are
yours to write, and observations add up. `(hmm3_n …)` and `(hmm4_n …)` give state n of three or four, from a ratio to
state 0 of each other state. Where an observation is made of w bars, divide its ratio by w: it is new only once in them.

```toml
[features.mine]
lively = "(hmm (sub (log_normal bar_return_bps 0 3) (log_normal bar_return_bps 0 1)) 0.999 0.99)"
```
"""

ASSESS: Final = """## What `assess` prints

`python run_pipeline.py assess` needs features and labels, and comes before any model. A line per feature, that of the
largest |z| of any horizon first:

| column | what |
|---|---|
| IC T | Spearman's correlation with the return of the mid over T from the entry on, training stretch alone |
| z | size of the largest of any horizon, of a t over disjoint calendar blocks; the table is sorted by it |
| PSI | population stability index, training stretch against hold-out: above 0.2 it moved; `train` shows the same |
| live | the same from the training stretch to the last live session in the data directory, of 200 decisions and more |
| cover | share of the decisions with full windows in which the feature was finite |
| warm-up | bars until its windows are full, on the features' clock; – where a join's own clock tells no time |
| ns | what it costs per row on one thread here, alone, with all that it joins |
| p1, median, p99 | quantiles in the training stretch; a narrow screen leaves them to the report |

The return begins where an order decided on would arrive, `labels.entry_latency_ms` after the decision: a bar of trades,
volume or dollars closes at the very trade that moves the mid, and nobody can have that move. Funding that falls due is
paid in it.

The stretches are those of `train`: decisions that are labelled at all its horizons, the last fifth of time held out.
Live are the decisions in the session's journal, of features that have the name and the expression they had there.

A star marks a coefficient that stands at a false discovery rate of 5 %, counted over all of the table (Benjamini and
Hochberg), from a t over disjoint calendar blocks. A coefficient that stands predicts returns, which need not pay their
costs. Below the table: what moved, and groups with |rho| > 0.7, of which one feature will do. The same stands in the
run's report.html, and as data in its report.json.
"""

COSTS: Final = """Cost is how the time of a bar grows with the window; O(1) is the mean over w bars, in one of which
the two blocks of a rolling window change places, at O(w). A longer window than the longest is an error: a bar would
take more than 0.1 ms, one in which something is computed anew more than 20 ms, or what is remembered more than 250 MB.
On longer bars it is cheap: `(at_1m (rank_1d x))`. `python run_pipeline.py operators` measures each in ns.
"""

CATALOGUE: Final = """{} features. `features.sets` chooses named sets; `all` is all of them but `positioning`, which
needs the table `signals`, and `cross`, which needs BTCUSDT among the symbols ({} more); the first eight are the
default. A set that reads levels of the book has the bars stage build as many; one marked ∞ has the days of a symbol
built in order. Warm-up is in bars of 200 ms; buckets of volume (`vpin`) fill when enough was traded.
Each beside a third party's function, its paper's formula or its definition: [references.md](references.md).
`python run_pipeline.py operators --set operators.find="kyle lambda"` finds features and operators by what is said here.

Windows are whole seconds. A clock that a second is no whole number of bars of (volume, 400 ms, 5 minutes) has in every
feature as many bars as the window holds of 200 ms, and its name says so: `return_bps_25` for `return_bps_5s`. Else only
a window with fewer bars than its operator needs is changed, to that many: on bars of 1 s `hurst_60s` is `hurst_64`.
"""

ABOUT: Final = {
    "tob": "the best prices: spread, imbalance, microprice",
    "ofi": "order flow imbalance of the best level",
    "flow": "takers: imbalance, size and rate of trades",
    "momentum": "returns of the mid",
    "volatility": "deviation and range of returns",
    "liquidation": "forced closings: how much, which side",
    "derivatives": "basis, premium, funding, open interest",
    "time": "time of the day, sessions, hours to funding",
    "book": "depth: imbalance, slope, order flow by level, micro-price, how the book comes back after trades",
    "micro": "costs and impact: effective and realised spread, Kyle, Hasbrouck, Amihud, Roll",
    "toxicity": "VPIN, large trades, makers against takers, entropy of sizes and sides, Hawkes intensity",
    "realized": "volatility by the literature's estimators, jumps, semivariances; momentum of price and volume",
    "cascade": "liquidations that set off more: growth, sizes, clustering, state",
    "carry": "velocity of open interest, funding and basis; what leads, what reverts",
    "fractal": "Williams fractals, Hurst, DFA, entropies, wavelets, fractional differences",
    "regime": "whether the market trends, reverts or clusters, and how lively it is by its own ranks",
    "calendar": "hour, weekday and their circles, sessions that overlap, minutes to funding and to expiries",
    "positioning": "longs against shorts, open interest, takers, funding and basis over hours and days, from `signals`",
    "cross": "correlation with BTCUSDT, beta, who goes first, what BTCUSDT just did; correlate prints the matrix",
}
