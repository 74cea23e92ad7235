"""The configuration: one frozen typed tree. Defaults stand here once, each with its reason.

Layers, later ones win: defaults, the named profile, `pipeline.toml` (or `--config FILE`), `--set key=value`, the
command line's own options. Unknown keys and bad values are ConfigErrors that hold the path of the key.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from core.config_checks import check
from core.config_errors import explain
from core.config_trees import merge, parse_pair, read_toml
from core.errors import ConfigError
from core.polling import Collector, Provider
from core.setting_types import (
    ArchiveUrl,
    BarClock,
    CoinMWsUrl,
    Day,
    Duration,
    EventTime,
    ExactInstant,
    Instant,
    PollDuration,
    RestUrl,
    SpotWsUrl,
    WsUrl,
)
from core.store import hash_of

ROOT: Final = Path(__file__).resolve().parents[1]
"""The repository. Relative paths hang on it, not on the working directory: cron starts elsewhere."""

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Bps = Annotated[float, Meta(ge=-10_000, le=10_000)]
CostBps = Annotated[float, Meta(ge=0, le=10_000)]
LatencyMs = Annotated[float, Meta(ge=0, le=60_000)]
SpanS = Annotated[float, Meta(gt=0, le=86_400)]
Horizon = Annotated[float, Meta(ge=0.001, le=86_400)]
LongS = Annotated[float, Meta(gt=0, le=366 * 86_400)]
"""Bounds far from where int64 nanoseconds end: a longer time is a slip."""
Fraction = Annotated[float, Meta(gt=0, lt=1)]
Chance = Annotated[float, Meta(ge=0, le=1)]
Threshold = Annotated[float, Meta(ge=0.5, lt=1)]
Interval = Literal[
    "1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"
]  # fmt: skip
Family = Literal["hgb", "lightgbm", "catboost"]
StreamKind = Literal["quotes", "trades", "depth", "partial", "marks", "liquidations", "klines"]
RestFault = Literal[403, 418, 429, 451, 500, 503, "timeout", "cut", "garbled"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration file."""


class Hosts(Section, frozen=True):
    """Base URLs. The simulated exchange and the replay server put their own in their place."""

    binance_um_ws: WsUrl = "wss://fstream.binance.com"
    binance_um_rest: RestUrl = "https://fapi.binance.com"
    binance_cm_ws: CoinMWsUrl = "wss://dstream.binance.com"
    binance_cm_rest: RestUrl = "https://dapi.binance.com"
    binance_ws: SpotWsUrl = "wss://stream.binance.com:9443"
    binance_rest: RestUrl = "https://api.binance.com"
    bybit_ws: WsUrl = "wss://stream.bybit.com"
    bybit_rest: RestUrl = "https://api.bybit.com"


class Capture(Section, frozen=True):
    # Of a live capture; 0: until it is stopped. 30 min is what a first look needs, a full model needs days.
    duration_s: Annotated[float, Meta(ge=0, le=366 * 86_400)] = 1800.0
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = 0  # Prometheus, on loopback; 0: none
    keep_raw: bool = False  # raw frames are 5-10x the tables: keep them to replay or to test a decoder
    # book_deltas, at the venue's nearest speed; the catalogue needs the best prices only.
    depth: Literal["off", "100ms", "250ms", "500ms", "1000ms"] = "500ms"
    partial_depth: Literal[0, 5, 10, 20] = 0  # Binance: so many best levels in full each time, in place of the changes
    bybit_depth: Literal[50, 200, 1000] = 50  # levels; the more, the slower: 20, 100, 200 ms
    klines: tuple[Interval, ...] = ()  # closed candles of the venue's own, such as 1m; our own bars need none
    symbols_per_connection: Count = 50  # so that no connection carries everything; venues permit some hundreds
    flush_rows: Count = 200_000  # per shard: bounds memory at about 20 MB for each table and symbol
    durable_s: SpanS = 1.0  # a live capture's rows are readable Parquet within this time of their receipt
    fsync: bool = False  # true: rows outlive a power cut as well as a crash, at some ms per file and second
    waiting_rows: Count = 4_000_000  # kept in memory (some 300 MB) while the disk refuses; beyond, the oldest go
    silence_s: SpanS = 10.0  # a book or trade stream of a liquid symbol that is silent for longer is broken
    connect_timeout_s: SpanS = 10.0
    # A connection is replaced when it is this old; 0: shortly before the venue would cut it, where it does.
    rotate_after_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    overlap_s: SpanS = 10.0  # the longest that old and new one run side by side: quiet streams are not waited for
    hosts: Hosts = Hosts()


class Replay(Section, frozen=True):
    path: str = ""  # a folder of *.jsonl[.zst] raw captures
    speed: NonNegative = 0.0  # times real time; 0: as fast as it goes
    # Through the replay server and sockets, as live; or from the files, in half the time: the tables are the same.
    transport: Literal["socket", "direct"] = "socket"


class Sim(Section, frozen=True):
    hours: Annotated[float, Meta(gt=0, le=8_760)] = (
        12.0  # 864 holds of 10 s in the hold-out: enough to judge T = 10 and 60 s, not 300 and 900
    )
    edge: CostBps = 14.0  # expected gross bps of the reference policy; about 3 net of regular fees. 0: a true null
    live_minutes: Annotated[float, Meta(gt=0, le=525_600)] = 20.0  # the fresh stretch that the live stage trades
    transport: Literal["socket", "direct"] = "socket"  # direct writes the tables without sockets, for studies
    speed: NonNegative = 0.0  # times real time; 0: as fast as it goes
    start: Instant = "2026-01-05T06:00:00Z"  # a Monday; its 08:00 funding falls inside the run
    sigma_bps: Positive = 1.5  # volatility of the efficient price in bps per square root second
    burst_per_hour: Positive = 20.0  # planted bursts per symbol
    feed_latency_ms: Annotated[float, Meta(gt=0, le=60_000)] = 5.0  # venue to receiver
    liquidity: Positive = 1.0


class ArchiveHosts(Section, frozen=True):
    """Where archives are downloaded from (exchange_protocols section E)."""

    binance: ArchiveUrl = "https://data.binance.vision"
    bybit: ArchiveUrl = "https://public.bybit.com"
    bybit_books: ArchiveUrl = "https://quote-saver.bycsi.com"
    tardis: ArchiveUrl = "https://datasets.tardis.dev"


class Backfill(Section, frozen=True):
    path: str = ""  # a folder of archive files, or one of them; empty: download
    # Empty: by the files' names, or by the venue. `recorded` reads CSV files of one's own.
    provider: Literal["", "binance", "bybit", "tardis", "recorded"] = ""
    datasets: tuple[str, ...] = ()  # as the provider names them, candles as klines_1m; empty: what the bars need
    first_day: Day = msgspec.field(default="", name="from")  # UTC days, both included; empty: all of a folder
    last_day: Day = msgspec.field(default="", name="to")
    latency_ms: LatencyMs = 10.0  # receive less exchange time of rows without one: a host in the venue's region
    connections: Annotated[int, Meta(ge=1, le=32)] = 4  # downloads at a time: a home line is full with fewer
    keep_files: bool = True  # of downloads; a second import, with another latency, needs them again
    hosts: ArchiveHosts = ArchiveHosts()


class Poll(Section, frozen=True):
    duration: PollDuration = "once"  # what cron needs
    only: tuple[str, ...] = ()  # names of collectors; empty: all whose symbols are there
    history_days: Annotated[float, Meta(ge=0, le=3_660)] = 30.0  # Binance keeps its positioning series no longer
    assumed_lag_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0  # of values fetched long after they were new
    stale_intervals: Annotated[float, Meta(ge=1)] = 3.0  # a series without a value for this long is told as stale
    jump_mads: Positive = 15.0  # robust bound of a change; a heavy tail passes 10 now and then
    providers: dict[str, Provider] = {}
    collectors: dict[str, Collector] = {}


class Signals(Section, frozen=True):
    """How features and the runner read the table `signals`. A model keeps the values that it was trained with."""

    # From known to readable: what polls wrote every 2 s and the runner reads again every 10 s, and as much again, so
    # that a run on the venue sees what a build of the same day sees later.
    delay_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    # A value older than so many of its intervals is not known any more: half an hour of one at 5m, two days of funding.
    stale_intervals: Annotated[float, Meta(ge=1, le=1_000)] = 6.0


class ExportEvents(Section, frozen=True):
    """`export_events`: captured events in another program's format. `export` is the stage that exports a model."""

    format: Literal["hftbacktest"] = "hftbacktest"
    path: str = ""  # a folder, one file per symbol-day; empty: `exported/` in the data directory
    start: ExactInstant | None = None  # None: from the first captured event
    end: ExactInstant | None = None  # exclusive; None: to the last
    base_latency_ms: LatencyMs = 0.0  # the least latency, where the local clock ran behind and all are shifted


class Faults(Section, frozen=True):
    """What the local servers do wrong on purpose, served at wall-clock time (`--wall`) alone. All off by default.

    Chances are per frame of a kind of stream, drawn from the run's seed; `every_s` hits one connection at random.
    """

    drop: dict[StreamKind, Chance] = {}
    double: dict[StreamKind, Chance] = {}
    reorder: dict[StreamKind, Chance] = {}  # sent after the next frame of its stream
    truncate: dict[StreamKind, Chance] = {}
    mute: tuple[StreamKind, ...] = ()  # acknowledged and never sent, as by the wrong category
    reset_every_s: NonNegative = 0.0  # TCP reset
    close_every_s: NonNegative = 0.0  # closed with 1001
    shutdown_every_s: NonNegative = 0.0  # a serverShutdown event, a second later closed with 1001
    silence_every_s: NonNegative = 0.0  # open, and nothing comes
    silence_s: SpanS = 30.0  # longer than capture.silence_s, or the client cannot know
    half_open_every_s: NonNegative = 0.0  # neither read nor written any more, and never closed
    restart_every_s: NonNegative = 0.0  # of the venue: its books are sent again from update id 1 (Bybit)
    stale_snapshots: Annotated[int, Meta(ge=0)] = 0  # so many depth snapshots by REST are as old as stale_s
    stale_s: Annotated[float, Meta(gt=0, le=50)] = 5.0
    rest: RestFault | None = None  # a status, no answer, a body cut off, a body that is not JSON
    rest_calls: Annotated[int, Meta(ge=0)] = 0  # the next so many calls; 0: each with rest_chance
    rest_chance: Chance = 0.0
    rest_path: str = ""  # of calls whose path begins so
    ledger: str = "logs/faults.jsonl"  # each fault as a line of JSON, so that a capture can be reconciled with it


Events = Annotated[tuple[EventTime, ...], Meta(max_length=1000)]
EventName = Annotated[
    str, Meta(pattern=r"^[a-z][a-zA-Z0-9_]*\Z", description="a name in letters of a to z, digits and _")
]


class Features(Section, frozen=True):
    # The default study's, whose windows fill in five minutes. More, and `all`: docs/language.md.
    sets: tuple[str, ...] = (
        "tob", "ofi", "flow", "momentum", "volatility", "liquidation", "derivatives", "time",
    )  # fmt: skip
    mine: dict[str, str] = {}
    # Known beforehand, with their zone: minutes_to_event and minutes_since_event count to and from them. Or several
    # lists by name, each of times or a file with one a line: fomc = "fomc.txt" makes minutes_to_fomc (event_times.py).
    events: Annotated[
        Events | dict[EventName, Annotated[Events | str, Meta(description="a list of times, or a file's name")]],
        Meta(description="a list of times with their zone, or such lists by name"),
    ] = ()
    fit_frac: Fraction = 0.2  # stage `fit` sees the first share of the bars; decisions there are never learnt from
    fit_until: Instant | None = None  # or all bars up to then
    # How many regimes there may be: the criterion of Bayes decides. More than four the filter does not know.
    regime_states: Annotated[tuple[Annotated[int, Meta(ge=2, le=4)], ...], Meta(min_length=1)] = (2, 3, 4)
    # What they are told from, in the language; the first orders them. None: volatility against its own quarter-hour.
    regime_inputs: tuple[str, ...] = ()


class Operators(Section, frozen=True):
    find: str = ""  # words that stand in what `operators` lists: in names, meanings, units, sets, sources; empty: all


class Labels(Section, frozen=True):
    # Takers; makers hold those of 10 s and longer.
    horizons_s: Annotated[tuple[Horizon, ...], Meta(min_length=1)] = (1.0, 10.0, 60.0, 300.0, 900.0)
    deltas_bps: Annotated[tuple[CostBps, ...], Meta(min_length=1)] = (0.0, 2.0, 5.0, 10.0)  # 0 is the touch
    gates_usd: Annotated[tuple[NonNegative, ...], Meta(min_length=1)] = (0.0, 50.0, 1000.0)
    fill_window_s: SpanS = 1.0  # how long the notional gate may take to fill
    max_rest_s: SpanS = 30.0  # R = min(T, this): the fill time is shared by all T, so R = min over T >= 10 s
    entry_latency_ms: LatencyMs = 20.0  # decision to matching engine
    exit_latency_ms: LatencyMs = 20.0
    min_maker_horizon_s: SpanS = 10.0
    slippage_bps: CostBps = 0.0  # per taking leg: the touch of a liquid symbol holds backtest.order_usd
    dead_band_bps: CostBps = 0.0  # |return| at or below is direction 0
    stale_book_s: SpanS = 60.0  # a best price older than this cannot be labelled against

    @property
    def rest_s(self) -> float:
        """R of every maker cell: min(T, max_rest_s) over the maker horizons, as the fill time is shared by all T."""
        makers = [horizon_s for horizon_s in self.horizons_s if horizon_s >= self.min_maker_horizon_s]
        return min([self.max_rest_s, *makers])


class Fee(Section, frozen=True):
    maker_bps: Bps
    taker_bps: Bps


REGULAR_FEES: Final = {  # exchange_protocols section F, default tiers
    "binance": Fee(10.0, 10.0),
    "binance_um": Fee(2.0, 5.0),
    "binance_cm": Fee(2.0, 5.0),  # not in section F: taken to be USD-M's
    "bybit": Fee(2.0, 5.5),
    "bybit_inverse": Fee(2.0, 5.5),
    "bybit_spot": Fee(10.0, 10.0),
}


class Train(Section, frozen=True):
    families: Annotated[tuple[Family, ...], Meta(min_length=1)] = ("hgb", "lightgbm", "catboost")
    # One model per horizon; longer ones are labelled, not judged.
    horizons_s: Annotated[tuple[Horizon, ...], Meta(min_length=1)] = (1.0, 10.0, 60.0)
    thresholds: Annotated[tuple[Threshold, ...], Meta(min_length=1)] = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80)
    edges_bps: Annotated[tuple[CostBps, ...], Meta(min_length=1)] = (0.0, 0.5, 1.0, 2.0)
    walk_forward_blocks: Annotated[int, Meta(ge=2)] = 8
    holdout_frac: Fraction = 0.2
    inner_folds: Annotated[int, Meta(ge=2)] = 4  # purged K-fold that tunes on the first block
    embargo_s: Annotated[float, Meta(ge=0, le=30 * 86_400)] | None = (
        None  # None: the longest R + T among the candidates
    )
    max_rows: Count = 20_000  # per fit: a quarter where earlier models spoke up, the rest thinned evenly in time
    rounds: Count = 80  # 40 leave a fifth of what sets a fresh burst from a spent one unlearnt
    min_fills_per_fold: Count = 30  # a maker cell with fewer is reported, not a candidate


class Backtest(Section, frozen=True):
    max_position: Count = 1  # positions per symbol and side at a time
    order_usd: Positive = 1_000.0
    max_inventory_usd: Positive = 2_000.0  # per symbol, absolute


class Live(Section, frozen=True):
    mode: Literal["paper", "shadow"] = "paper"
    model: str = ""  # a model's id, or `current`; empty: the one exported last, so that a run ends with its own model
    duration_s: LongS = 1800.0  # of a live feed; the simulator's stretch is sim.live_minutes
    allow_live_feed: bool = False  # `--source live`: the runner connects to the venue only when told to


class Config(Section, frozen=True):
    source: Literal["sim", "replay", "archive", "live"] = "sim"
    profile: Literal["default", "smoke", "low_cost"] = "default"
    data_dir: Annotated[str, Meta(min_length=1)] = "data"
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 1  # what the training libraries take
    # None: the default four; in replay whatever the frames hold.
    symbols: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    bars: BarClock = "time_200ms"  # the others: research/bars/clocks.py
    bars_also: tuple[BarClock, ...] = ()  # further clocks to build in the same pass, beside those that features ask for
    # The least number of book levels that bars hold; features that read more have more built. They cost a read of L2.
    bars_levels: Annotated[int, Meta(ge=0, le=20)] = 0
    decision: Duration = "1s"  # how often the policy looks, on time bars; every bar on volume bars
    capture: Capture = Capture()
    replay: Replay = Replay()
    sim: Sim = Sim()
    backfill: Backfill = Backfill()
    poll: Poll = Poll()
    signals: Signals = Signals()
    export_events: ExportEvents = ExportEvents()
    faults: Faults = Faults()
    features: Features = Features()
    operators: Operators = Operators()
    labels: Labels = Labels()
    fees: dict[str, Fee] = msgspec.field(default_factory=lambda: dict(REGULAR_FEES))
    train: Train = Train()
    backtest: Backtest = Backtest()
    live: Live = Live()

    @property
    def root(self) -> Path:
        """The data directory, absolute."""
        return ROOT / self.data_dir

    @property
    def simulated(self) -> bool:
        return self.source == "sim"


DEFAULT_SYMBOLS: Final = ("binance_um:BTCUSDT", "binance_um:ETHUSDT", "bybit:BTCUSDT", "bybit:ETHUSDT")
PROFILES: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    # One hour, small fits: what the end-to-end test runs. Too short to judge anything, and it says so.
    "smoke": {"sim": {"hours": 1.0, "live_minutes": 3.0}, "train": {"max_rows": 4_000, "rounds": 30}},
    # The edge arm of method section 6: costs near nothing, so that 1 bp net can be found in a day.
    "low_cost": {
        "sim": {"hours": 24.0, "edge": 2.5},
        "fees": {name: {"maker_bps": 0.0, "taker_bps": 0.5} for name in REGULAR_FEES},
    },
}


def load(
    file: str | None = None, pairs: Sequence[str] = (), options: Mapping[str, Any] | None = None, root: Path = ROOT
) -> Config:
    """The configuration from a TOML file, `key=value` pairs and command-line options (None values are not given).

    Raises ConfigError for an unknown key, a bad value, a missing or broken file.
    """
    from_file = read_toml(root / file, needed=True) if file else read_toml(root / "pipeline.toml", needed=False)
    given: dict[str, Any] = {}
    for pair in pairs:
        merge(given, parse_pair(pair))
    merge(given, {name: value for name, value in (options or {}).items() if value is not None})
    chosen = given.get("profile", from_file.get("profile", "default"))
    tree: dict[str, Any] = {"fees": msgspec.to_builtins(REGULAR_FEES)}
    if isinstance(chosen, str) and chosen in PROFILES:
        merge(tree, PROFILES[chosen])
    merge(tree, from_file)
    merge(tree, given)
    try:
        config = msgspec.convert(tree, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(str(error), tree, Config)) from error
    check(config)
    return config


def hash_config(config: Config) -> str:
    """A hash of everything that can change a result: the data directory and the run's speed cannot."""
    neutral = msgspec.structs.replace(
        config,
        data_dir="",
        replay=msgspec.structs.replace(config.replay, speed=0.0),
        sim=msgspec.structs.replace(config.sim, speed=0.0),
    )
    return hash_of(msgspec.json.encode(neutral))
