"""Stage `fit`: the numbers in features that must be fitted, on a stretch of bars before all that is learnt or judged.

    python run_pipeline.py bars fit features labels train --set 'features.sets=["flow", "fitted"]'
    python research/fit_features.py --set features.fit_until=2026-03-01T00:00:00Z

The stretch is the first `features.fit_frac` of the bars' time, or all up to `features.fit_until`; of a long one its
last month. One set of numbers serves all symbols, so that one model does. What cannot be fitted on the stretch is left
out, with the reason. Fitted are

  regime_turbulent,       probability of the liveliest of two to four regimes, from volatility against its own
  regime_1, …,            quarter-hour; of those between it and the calmest; which is likeliest; how unsure that is
  regime_likely,          (regimes.py)
  regime_entropy
  fractional_bps_least    the mid, differenced to the least order that leaves no unit root (stationarity.py)
  ofi_component           the levels' order flow, weighted by its first principal component (component.py)
  volume_unseasonal,      logarithms of a minute's volume and volatility, less what the time of the day, and the
  volatility_unseasonal   weekend where weeks were seen, explain (seasonality.py)
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core import store
from core.cli import stage_main
from core.config import Config
from core.errors import ConfigError, StageError
from core.run_record import Stage
from core.schema import BARS, FEATURES, Table
from core.store import Partition
from core.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_S
from research.bars.clocks import decision_step_ns, parse_clock
from research.bars.columns import bar_columns, deepest_level
from research.catalogue import DEFINITIONS, EVERY_COLUMN, REFERENCE_BAR, feature_columns, feature_rows
from research.fitting.fitted import Fitted, discard_damaged, fitted_path, instant_text, read_fitted, write_fitted
from research.fitting.not_fitted import NotFitted
from research.fitting.regimes import choose_regimes, overlap_bars, regime_features
from research.fitting.seasonality import LEAST_WEEKS, fit_season, weeks_seen
from research.fitting.stationarity import least_order
from research.language import compile_features, expand
from research.machine.component import LEVELS, component_text, first_component, level_flows
from research.needs import needed_bars
from research.programs.expression import Node, show
from research.programs.windows import window_bars
from research.sets.fractal import fractional_level_bps

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

READS: tuple[Table, ...] = (BARS,)
WRITES: tuple[Table, ...] = ()

ORDERS: Final = tuple(k / 20 for k in range(21))
_MOST_DAYS: Final = 30
_MOST_BARS: Final = 2_000_000  # per symbol, where every bar or every second counts: five days of 200 ms
_ANY: Final = 2**62
_LEAST_ROWS: Final = 1_000  # below that no number is worth keeping
_LEAST_BARS: Final = 20  # in the shortest window: fewer say little of a deviation
_EVERY_BAR: Final = 1
_MORE: Final = "capture more, or raise features.fit_frac"


@dataclass(frozen=True)
class Observed:
    """Some expressions at some bars of one symbol's stretch: `values` (n, expressions); times and indices (n,)."""

    close_ns: Ints
    bar_index: Ints
    values: Floats


Observe = Callable[[Mapping[str, str], int, int], list[Observed]]
"""Observations of expressions, symbol by symbol: at the last bar of each step of so many ns (1 ns: at every bar), over
the last days of the stretch that hold no more than so many bars (or one day that does)."""


def run(cfg: Config, stage: Stage) -> None:
    """Bars to the numbers of the set `fitted`."""
    if discard_damaged(cfg.root, cfg.bars):
        stage.say(f"{fitted_path(cfg.root, cfg.bars)} could not be read and is removed")
    days = store.require(cfg.root, BARS, cfg.symbols or (), cfg.bars)
    first_ns, last_ns = _first_and_last_ns(cfg, days)
    until_ns = fit_border_ns(cfg, first_ns, last_ns)
    chains = [list(chain) for _, chain in groupby(_before(days, until_ns), key=lambda day: day.instrument)]
    if not chains:
        raise StageError(f"no bars of {cfg.bars} in the {_MOST_DAYS} days before {instant_text(until_ns)} to fit on")

    def observe(texts: Mapping[str, str], step_ns: int, most_bars: int) -> list[Observed]:
        return [_observed(cfg, _last(cfg, chain, most_bars), until_ns, texts, step_ns) for chain in chains]

    stage.say(f"fitting on {len(chains)} symbols, bars of {cfg.bars} up to {instant_text(until_ns)}")
    if until_ns >= _last_decision_ns(cfg, last_ns):
        stage.say("no decision is after that: features will have no rows until more is captured, or fitted on less")
    features: dict[str, str] = {}
    for fit in FITS:
        try:
            found, line = fit(cfg, observe)
        except NotFitted as error:
            found, line = {}, f"{FITS[fit]}: left out: {error}"
        features |= found
        stage.say(line)
    if not features:
        raise StageError(f"nothing could be fitted: {_MORE}")
    _keep(cfg, Fitted(until_ns, features), stage)


def fit_border_ns(cfg: Config, first_ns: int, last_ns: int) -> int:
    """The close of the last bar that a fit may see, of bars that close from `first_ns` to `last_ns`.

    Raises StageError where features.fit_until lies outside of them.
    """
    if cfg.features.fit_until is None:
        return int(first_ns + cfg.features.fit_frac * (last_ns - first_ns))
    until_ns = round(datetime.fromisoformat(cfg.features.fit_until).timestamp()) * NS_PER_S
    if not first_ns <= until_ns <= last_ns:
        raise StageError(
            f"features.fit_until: bars of {cfg.bars} close from {instant_text(first_ns)} to {instant_text(last_ns)}, "
            f"was {instant_text(until_ns)}: choose an instant between, before what is learnt and tested"
        )
    return until_ns


def _first_and_last_ns(cfg: Config, days: Sequence[Partition]) -> tuple[int, int]:
    """When the first and the last bar of all symbols close."""
    dates = [day.date for day in days]
    ends = [day for day in days if day.date in (min(dates), max(dates))]
    closes = [store.read(cfg.root, day, ["close_ns"])["close_ns"] for day in ends]
    return min(each[0] for each in closes), max(each[-1] for each in closes)


def _last_decision_ns(cfg: Config, last_ns: int) -> int:
    """The last decision at or before the close of a bar."""
    step_ns = decision_step_ns(parse_clock(cfg.bars), cfg.decision)
    return last_ns // step_ns * step_ns if step_ns else last_ns


def fit_regime(cfg: Config, observe: Observe) -> tuple[dict[str, str], str]:
    """The filter of two or more regimes, on every bar. Its observations are such that all symbols share them."""
    inputs = tuple(" ".join(text.split()) for text in cfg.features.regime_inputs) or (volatility_ratio(cfg.bars),)
    overlap = max(overlap_bars(_input(text, cfg.bars), cfg.bars) for text in inputs)
    symbols = observe({f"input_{k}": text for k, text in enumerate(inputs)}, _EVERY_BAR, _MOST_BARS)
    begins = np.concatenate([np.diff(each.bar_index, prepend=-2) != 1 for each in symbols])
    values = np.concatenate([each.values for each in symbols])
    n = _require_rows(values.sum(axis=1))
    regimes, why = choose_regimes(values, begins, cfg.features.regime_states, cfg.seed, overlap)
    states = "; ".join(
        f"{mean[0]:.2f} ± {sd[0]:.2f} for {1 / (1 - regimes.moves[k, k]):,.0f} bars"
        for k, (mean, sd) in enumerate(zip(regimes.mean, regimes.sd, strict=True))
    )
    what = "of regime_inputs[0]" if cfg.features.regime_inputs else "of the log volatility ratio"
    return regime_features(regimes, inputs), f"{regimes.states} regimes {what}: {states}; n={n:,}; {why}"


def _input(text: str, bar: str) -> Node:
    """What regimes are told from. Raises ConfigError where that is not in the language, or not of one bar clock."""
    try:
        compile_features({"regime": text}, EVERY_COLUMN, bar, DEFINITIONS)
        return expand(text, EVERY_COLUMN, DEFINITIONS)
    except ValueError as error:
        raise ConfigError(f"features.regime_inputs: {error}\n  - at `$.features.regime_inputs`") from None


def volatility_ratio(bar: str) -> str:
    """What regimes are told from: the logarithm of volatility against a longer while of it."""
    short, _, long = windows(bar)
    return f"(log (max2 0.05 (ratio (std_{short} bar_return_bps) (std_{long} bar_return_bps))))"


def fit_order(cfg: Config, observe: Observe) -> tuple[dict[str, str], str]:
    """The least order of difference of the log mid, seen once a second, that leaves no unit root in any symbol."""
    _, window, _ = windows(cfg.bars)
    texts = {f"d{k}": fractional_level_bps(window, order) for k, order in enumerate(ORDERS)}
    symbols = observe(texts, NS_PER_S, _MOST_BARS)
    for each in symbols:
        _require_rows(each.values[:, 0])
    order = least_order(ORDERS, [each.values for each in symbols])
    if order is None:
        raise NotFitted("even returns have a unit root on this stretch")
    line = f"fractional_bps_least: order {order:g}, n={sum(len(each.close_ns) for each in symbols):,}"
    return {"fractional_bps_least": texts[f"d{ORDERS.index(order)}"]}, line


def fit_component(cfg: Config, observe: Observe) -> tuple[dict[str, str], str]:
    """Weights of the book's levels in their order flow, seen once a second."""
    window, _, _ = windows(cfg.bars)
    symbols = observe({f"level_{k}": text for k, text in enumerate(level_flows(window))}, NS_PER_S, _MOST_BARS)
    values = np.concatenate([each.values for each in symbols])
    _require_rows(values[:, 0])
    weights, share = first_component(values)
    line = f"ofi_component: holds {share:.0%} of the variance of {LEVELS} levels' order flow, n={len(values):,}"
    return {"ofi_component": component_text(weights, window)}, line


def fit_seasons(cfg: Config, observe: Observe) -> tuple[dict[str, str], str]:
    """The waves of volume and of volatility by day and by week, seen once a minute."""
    _, window, _ = windows(cfg.bars)
    texts = {
        "volume": f"(log1p (sum_{window} traded_usd))",
        "volatility": f"(log (max2 0.001 (std_{window} bar_return_bps)))",
    }
    symbols = observe(texts, NS_PER_MINUTE, _ANY)
    close_ns, values = (np.concatenate([getattr(each, name) for each in symbols]) for name in ("close_ns", "values"))
    symbol = np.repeat(np.arange(len(symbols)), [len(each.close_ns) for each in symbols])
    found, lines, second, day = {}, [], close_ns % NS_PER_DAY / NS_PER_S, close_ns // NS_PER_DAY
    for k, (name, text) in enumerate(texts.items()):
        season = fit_season(values[:, k], second, day, symbol)
        found[f"{name}_unseasonal"] = f"(sub {text} {season.text()})"
        weeks = weeks_seen(second[np.isfinite(values[:, k])], day[np.isfinite(values[:, k])])
        few = (
            ""
            if season.weekend
            else f" alone, as each hour was seen in {weeks} weeks of the {LEAST_WEEKS} for weekends"
        )
        lines.append(f"{name}_unseasonal: waves of {'day and weekend' if season.weekend else 'the day'}{few}")
    return found, f"{'; '.join(lines)}; n={len(close_ns):,} minutes"


FITS: Final = {
    fit_regime: "regimes",
    fit_order: "fractional_bps_least",
    fit_component: "ofi_component",
    fit_seasons: "volume_unseasonal, volatility_unseasonal",
}
"""What is fitted, each with what it is called where it is left out."""


def _observed(
    cfg: Config, days: Sequence[Partition], until_ns: int, texts: Mapping[str, str], step_ns: int
) -> Observed:
    """Expressions over one symbol's days, no bar of which closes after `until_ns`."""
    whole = {name: show(expand(text, EVERY_COLUMN, DEFINITIONS)) for name, text in texts.items()}
    levels = deepest_level(whole.values())
    columns, pieces = bar_columns(levels), []
    stream = compile_features(whole, feature_columns(levels), cfg.bars).start()
    for day in days:
        if levels > _levels_of(cfg, day):
            raise NotFitted(_why_levels(levels, needed_bars(cfg).levels))
        bars = store.read(cfg.root, day, ["close_ns", "bar_index", *columns]).filter(pl.col("close_ns") <= until_ns)
        close_ns, bar_index = bars["close_ns"].to_numpy(), bars["bar_index"].to_numpy()
        step = close_ns // step_ns
        take = np.flatnonzero(np.diff(step, append=step[-1:] + 1) > 0)
        rows = feature_rows(bars.select(columns).to_numpy(), close_ns)
        pieces.append(Observed(close_ns[take], bar_index[take], stream.run(rows, bar_index, take)))
    return Observed(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Observed.__annotations__))


def _why_levels(levels: int, built: int) -> str:
    """What to do about bars with fewer levels than a fit reads; `built`: how many `bars` builds with these settings."""
    choose = "" if built >= levels else " and features.sets that read them, as `book`"
    return f"needs {levels} levels of the book, which the bars do not hold: run `bars` with these settings{choose}"


def _levels_of(cfg: Config, day: Partition) -> int:
    """How many levels of the book all bars of a day hold."""
    return min((deepest_level(pl.read_parquet_schema(path)) for path in store.files(cfg.root, day)), default=0)


def _before(days: Sequence[Partition], until_ns: int) -> list[Partition]:
    """The days of the stretch, by symbol, its last month alone."""
    opens = until_ns - _MOST_DAYS * NS_PER_DAY
    return sorted(day for day in days if opens <= day.starts_ns <= until_ns)


def _last(cfg: Config, days: Sequence[Partition], most_bars: int) -> list[Partition]:
    """The last of a symbol's days that together hold no more bars than that, one at least."""
    held = np.cumsum([store.rows(cfg.root, day) for day in reversed(days)])
    return list(days)[-max(int(np.sum(held <= most_bars)), 1) :]


def windows(bar: str) -> tuple[str, str, str]:
    """30 s, 60 s and 900 s on a clock of which 30 s hold enough bars, else as many bars as the reference clock's."""
    spans = ("30s", "60s", "900s")
    try:
        if window_bars(spans[0], bar) >= _LEAST_BARS:
            return spans
    except ValueError:
        pass  # bars that no time can be counted in
    short, middle, long = (str(window_bars(span, REFERENCE_BAR)) for span in spans)
    return short, middle, long


def _require_rows(values: Floats) -> int:
    """How many are known. Raises NotFitted where they are too few."""
    n = int(np.isfinite(values).sum())
    if n < _LEAST_ROWS:
        raise NotFitted(f"needs {_LEAST_ROWS:,} values, the stretch has {n:,} once windows are full: {_MORE}")
    return n


def _keep(cfg: Config, fitted: Fitted, stage: Stage) -> None:
    """Write what was fitted; where it is not what was there, remove the features that were built with that."""
    before = read_fitted(cfg.root, cfg.bars)
    if before != fitted:
        write_fitted(cfg.root, cfg.bars, fitted)
        names = fitted.features.keys() | (before.features.keys() if before else set())
        days = store.partitions(cfg.root, FEATURES, bars=cfg.bars)
        built = [path for day in days for path in store.files(cfg.root, day)]
        stale = [path for path in built if not names.isdisjoint(pl.read_parquet_schema(path))]
        for path in stale:
            path.unlink()
        if stale:
            stage.say(f"{len(stale)} days of features were built with other numbers and are removed: run `features`")
    stage.say(f"wrote {fitted_path(cfg.root, cfg.bars)}: name `fitted` in features.sets to use it")
    stage.put("fit", {"until_ns": fitted.until_ns, "features": fitted.features})


if __name__ == "__main__":
    stage_main("fit", run)
