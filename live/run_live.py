"""Live stage: the exported model on the same sockets that capture uses, on paper or in shadow.

    python run_pipeline.py live

Simulated: the fresh stretch that follows the captured one, from the state in which that ended. Replay: all recorded
frames, with orders on the held-out stretch only. Live: the venue, for `live.duration_s`, and only if
`live.allow_live_feed` says so. A model without an edge makes scores and no orders, and so does one that learned from a
simulated market on a real one. Event tables are never written: what
the runner saw is in its journal, `<data>/live/<model_id>/<session>/`, and the batch computation is run over that.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import asyncio
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
import numpy as np

from core import schema, store
from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.origin import read_origin
from core.run_record import Stage
from core.servers import hosts
from core.units import BPS, NS_PER_MINUTE, NS_PER_US
from ingest.feeds import tuned_interpreter
from live import journal
from live.journal import Journal, Recording, State
from live.manifest import CURRENT, EXPORTED, Bundle, load_bundle, models_folder
from live.paper import PaperAccount
from live.parity import CapturedBars, CaptureParity, Parity, against_capture, compare
from live.runner import Outcome, Runner, header, levels_of
from live.session import COLLECT_EVERY, Witness, follow
from live.slow_series import Versions
from live.start import start_lines, start_states
from research.bars.columns import bar_columns
from research.signal_table import SignalTable, missing_lines, signal_table

READS, WRITES = (schema.BARS,), ()
VERSION: Final = 2

STRETCHES: Final = {
    "sim": "a fresh stretch after the captured one",
    "replay": "recorded frames, orders after the training part only",
    "live": "the venue",
    "archive": "",
}
"""What a session of a source runs over."""

Mode = Literal["paper", "shadow"]


def run(cfg: Config, stage: Stage) -> None:
    """Follow the market with the exported model, then prove that it computed what research computes."""
    if cfg.source == "archive":
        stage.say("skipped: archived data have no feed to follow")
        return
    if cfg.source == "live" and not cfg.live.allow_live_feed:
        stage.say("skipped: the runner connects to the venue only with --set live.allow_live_feed=true")
        return
    bundle = load_bundle(model_folder(cfg))
    if is_out_of_place(cfg, bundle):
        stage.say(f"{bundle.manifest.model_id} learned from a simulated market: on a real one it runs in shadow")
    starts = start_states(cfg, bundle)
    folder = session_folder(cfg, bundle)
    if cfg.source != "live" and stage.reuse(session_key(cfg, bundle, starts), whole=folder.exists()):
        return
    shutil.rmtree(folder, ignore_errors=True)
    slow = signal_table(cfg, bundle.program, bundle.manifest.signals_read)
    versions = {name: slow.versions(name) for name in starts}
    for line in missing_lines(slow.names, {name: list(each) for name, each in versions.items()}):
        stage.say(line)
    for line in start_lines(cfg, bundle, starts):
        stage.say(line)
    runner, captured = follow_market(cfg, bundle, starts, folder, slow, versions)
    session = journal.read(folder)
    report(stage, cfg, bundle, session, runner, compare(session, bundle), against_capture(session, captured))


def mode_of(cfg: Config, bundle: Bundle) -> Mode:
    """`paper`, or `shadow`: scores without orders, which is all that a model without an edge gets."""
    may_trade = bundle.manifest.tradeable and not is_out_of_place(cfg, bundle)
    return "paper" if cfg.live.mode == "paper" and may_trade else "shadow"


def is_out_of_place(cfg: Config, bundle: Bundle) -> bool:
    """Did the model learn from a simulated market, and is this a real one?"""
    origin = read_origin(cfg)
    is_real = cfg.source == "live" or not (cfg.simulated or (origin is not None and origin.simulated))
    return bundle.manifest.simulated and is_real


def model_folder(cfg: Config) -> Path:
    """The bundle to run: `live.model`; the one in use where that is `current`, the last exported where it is empty."""
    folder = models_folder(cfg.root)
    if cfg.live.model not in ("", "current"):
        return folder / cfg.live.model
    pointer = folder / (CURRENT if cfg.live.model else EXPORTED)
    try:
        return folder / pointer.read_text().strip()
    except FileNotFoundError:
        if cfg.live.model and (folder / EXPORTED).exists():
            raise StageError(
                f"{pointer} does not exist: no export had the verdict edge yet; leave live.model out to run the last "
                "model exported, in shadow"
            ) from None
        raise StageError(f"{pointer} does not exist: run `python run_pipeline.py export` first") from None


def session_key(cfg: Config, bundle: Bundle, starts: Mapping[str, State]) -> str:
    """What a session on a market that can be had again depends on."""
    policy = (mode_of(cfg, bundle), cfg.labels, cfg.backtest, cfg.fees)
    states = {name: journal.state_sha256(state) for name, state in starts.items()}
    slow = signal_table(cfg, bundle.program, bundle.manifest.signals_read)
    held = [store.fingerprint(cfg.root, slow.parts(name)) for name in starts] if slow.names else []
    return store.hash_of(VERSION, bundle.manifest, policy, read_origin(cfg), cfg.sim.live_minutes, states, *held)


def session_folder(cfg: Config, bundle: Bundle) -> Path:
    """Where the journal goes. A session that can be had again replaces the one before; a live one keeps its own."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return cfg.root / "live" / bundle.manifest.model_id / (now if cfg.source == "live" else cfg.source)


def follow_market(
    cfg: Config,
    bundle: Bundle,
    starts: dict[str, State],
    folder: Path,
    slow: SignalTable,
    versions: Mapping[str, Versions],
) -> tuple[Runner, CapturedBars]:
    """Run one session into its journal; also the bars of the same stretch as captured independently."""
    mode = mode_of(cfg, bundle)
    account = PaperAccount(cfg, bundle.manifest.candidate, list(starts)) if mode == "paper" else None
    witness = Witness(bundle, starts) if cfg.source == "sim" else None
    log = Journal.create(folder, header(bundle, mode, starts), starts)
    trade_from_ns = bundle.manifest.train_window[1] if cfg.source == "replay" else 0
    runner = Runner(bundle, starts, log, account, time.perf_counter_ns, trade_from_ns)
    runner.learn(versions)
    try:
        with hosts(cfg, "fresh") as where, tuned_interpreter(COLLECT_EVERY):
            asyncio.run(follow(cfg, where, runner, log, witness, list(starts), slow))
    finally:
        log.close()
    return runner, witness.bars(starts) if witness is not None else captured_bars(cfg, bundle, starts)


def captured_bars(cfg: Config, bundle: Bundle, starts: Mapping[str, State]) -> CapturedBars:
    """The bars of the capture stage; none for a live session, which no capture accompanies."""
    found: CapturedBars = {}
    if cfg.source != "replay":
        return found
    columns = bar_columns(levels_of(bundle))
    for name in starts:
        parts = store.partitions(cfg.root, schema.BARS, [name], bundle.manifest.bars)
        frames = [store.read(cfg.root, part, ["bar_index", *columns]) for part in parts]
        index = np.concatenate([np.zeros(0, np.int64), *(frame["bar_index"].to_numpy() for frame in frames)])
        values = [frame.select(columns).to_numpy() for frame in frames]
        found[name] = index, np.concatenate([np.zeros((0, len(columns))), *values])
    return found


def report(
    stage: Stage,
    cfg: Config,
    bundle: Bundle,
    session: Recording,
    runner: Runner,
    parity: Parity,
    capture: CaptureParity,
) -> None:
    """The section `live` and its lines. Raises StageError where the runner and the batch differ."""
    trading = trading_figures(session, cfg.backtest.order_usd)
    latency_us = percentiles_us(runner.latencies_ns)
    minutes = _minutes(session)
    head = {"mode": session.header.mode, "model_id": session.header.model_id, "verdict": bundle.manifest.verdict}
    counts = {"instruments": list(session.header.instruments), "minutes": minutes, "cold": runner.cold_decisions}
    proof = msgspec.to_builtins(parity) | {"against_capture": msgspec.to_builtins(capture)}
    stage.put("live", {**head, **counts, **trading, "parity": proof, "latency_us": latency_us})
    stage.rows_in, stage.rows_out = session.events.size, session.decisions.size
    say_trading(stage, head, counts | {"stretch": STRETCHES[cfg.source]}, trading)
    say_parity(stage, parity, capture)
    if runner.slow_series.late:
        stage.say(
            f"{runner.slow_series.late:,} values of signals were readable later than signals.delay_s after they were "
            "known: a build of this stretch sees them sooner; raise it, or poll with --duration forever"
        )
    stage.say(latency_line(runner.latencies_ns))
    if not parity.holds:
        raise StageError(
            "the runner and the batch computation differ over the same events: a defect of the program, "
            f"no figure of this session counts; its journal is {cfg.root / 'live' / session.header.model_id}"
        )


def trading_figures(session: Recording, order_usd: float) -> dict[str, Any]:
    """Counts and means of the session's decisions and settled orders; bps per order count an unfilled one as 0."""
    outcomes, fills = session.decisions["outcome"], session.fills
    filled = fills[fills["fill_ns"] > 0]
    orders = int(np.count_nonzero(outcomes == Outcome.ORDERED))
    return {
        "decisions": int(outcomes.size),
        "sides": int(np.count_nonzero(session.decisions["side"])),
        "orders": orders,
        "limited": int(np.count_nonzero(outcomes == Outcome.LIMITED)),
        "fills": int(filled.size),
        "unsettled": orders - int(fills.size),
        "fill_rate": filled.size / fills.size if fills.size else None,
        "gross_bps": float(filled["gross_bps"].mean()) if filled.size else None,
        "net_bps": float(filled["net_bps"].mean()) if filled.size else None,
        "net_bps_per_order": float(fills["net_bps"].sum() / fills.size) if fills.size else None,
        "net_usd": float(fills["net_bps"].sum() * order_usd / BPS) if fills.size else None,
    }


def percentiles_us(latencies_ns: list[int]) -> dict[str, float | None]:
    """Median and 99th percentile in microseconds."""
    if not latencies_ns:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(latencies_ns, [50, 99]) / NS_PER_US
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}


def latency_line(latencies_ns: list[int]) -> str:
    """The percentiles, what they cover and what they are over."""
    us = percentiles_us(latencies_ns)
    if us["p50"] is None:
        return "latency: no decision was made"
    covered = "from decoded events to the decision (network and decoding excluded)"
    return f"latency: p50 {us['p50']} us, p99 {us['p99']} us {covered}, n={len(latencies_ns):,}"


def say_trading(stage: Stage, head: Mapping[str, Any], counts: Mapping[str, Any], trading: Mapping[str, Any]) -> None:
    what = f"{head['model_id']} ({head['verdict']}) in {head['mode']}"
    where = f"{counts['stretch']}, {len(counts['instruments'])} instruments, {counts['minutes']} min"
    stage.say(f"{what}: {where}, {trading['decisions']:,} decisions, {counts['cold']:,} more while windows filled")
    stage.say(trading_line(trading))


def trading_line(trading: Mapping[str, Any]) -> str:
    """Counts, and means with what they are over: fills, and orders that came to an end."""
    line = f"sides={trading['sides']:,} | limited={trading['limited']:,} | orders={trading['orders']:,}"
    line += f" | fills={trading['fills']:,}"
    if trading["net_bps"] is None:
        return line
    line += f" | avg_gross_bps={trading['gross_bps']:.2f} | avg_net_bps={trading['net_bps']:.2f}"
    line += f" | n={trading['fills']:,} fills | net_bps_per_order={trading['net_bps_per_order']:.2f}"
    return f"{line} | n={trading['orders'] - trading['unsettled']:,} orders ended | net_usd={trading['net_usd']:.2f}"


def say_parity(stage: Stage, parity: Parity, capture: CaptureParity) -> None:
    verdict = "equal to the bit" if parity.holds else "DIFFERENT"
    compared = f"{parity.bars_compared:,} bars, {parity.decisions_compared:,} decisions"
    largest = f"of a feature {parity.max_abs_feature_diff:g}, of a score {parity.max_abs_score_diff:.1e}"
    stage.say(f"against the batch over the same events: {compared}, {verdict}; largest difference {largest}")
    if capture.share_equal is None or capture.p99_rel_diff is None:
        stage.say("against an independent capture: there is none")
        return
    stage.say(
        f"against an independent capture: {100 * capture.share_equal:.2f} % of {capture.bars_compared:,} bars equal, "
        f"p99 relative difference {capture.p99_rel_diff:.1e}, {capture.missing:,} bars not in it"
    )


def _minutes(session: Recording) -> float:
    """Market time that the session followed."""
    times = session.events["recv_ns"]
    return round(float(times.max() - times.min()) / NS_PER_MINUTE, 1) if times.size else 0.0


if __name__ == "__main__":
    stage_main("live", run)
