"""A small model and a small market, enough to run the whole runner without a socket."""

from pathlib import Path

import numpy as np

from core.config import Config
from core.units import NS_PER_MS, NS_PER_S
from ingest.events import Event, Gap, Mark, Quote, Trade
from live.manifest import (
    ExportParity,
    Manifest,
    probe,
    sha256,
    write_bundle,
)
from live.onnx_export import features_metadata, to_onnx
from research.catalogue import compile_texts
from research.learning.candidates import Candidate
from research.learning.decision import Calibration
from research.learning.trees import TreeEnsemble

NAMES = ("binance_um:BTCUSDT", "bybit:ETHUSDT")
BEGIN_NS = 1_700_000_000 * NS_PER_S
FEATURES = (
    ("imbalance", "(ratio (sub bid_qty ask_qty) (add bid_qty ask_qty))"),
    ("return_bps", "(mul 1e4 (div (delta_5 close_price) (lag_5 close_price)))"),
    ("ofi_z", "(zscore_10 ofi_qty)"),
    ("flow", "(sub (mean_4s buy_usd) (mean_4s sell_usd))"),
)
JOINED = (
    ("trend", "(sub close_price (at_5s (mean_2 close_price)))"),
    ("trades", "(at_volume_0.5 (lag_1 close_price))"),
    ("other", "(corr_4s (delta_1 close_price) (of_bybit:ETHUSDT (delta_1 close_price)))"),
    ("standing", "(cs_rank (at_1s (sum_3 ofi_qty)))"),
)
"""Features with joins, as many as FEATURES."""
BARS = "time_200ms"


def forest(seed: int = 5, trees: int = 30) -> TreeEnsemble:
    """Stumps on random features at random thresholds."""
    random = np.random.default_rng(seed)
    first = 3 * np.arange(trees)
    feature, threshold = np.full(3 * trees, -1), np.zeros(3 * trees)
    left, right = np.arange(3 * trees), np.arange(3 * trees)
    feature[first], threshold[first] = random.integers(0, len(FEATURES), trees), random.normal(0.0, 0.5, trees)
    left[first], right[first] = first + 1, first + 2
    value = random.normal(0.0, 2.0, 3 * trees)
    return TreeEnsemble(
        feature=feature.astype(np.int32),
        threshold=threshold.astype(np.float32),
        missing_left=np.zeros(3 * trees, np.bool_),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        value=value,
        cover=np.ones(3 * trees),
        roots=first.astype(np.int32),
        base=0.1,
        n_features=len(FEATURES),
    )


def manifest_of(
    model: bytes, candidate: Candidate, verdict: str, simulated: bool, features: tuple[tuple[str, str], ...], bars: str
) -> Manifest:
    program = compile_texts(dict(features), bars)
    return Manifest(
        model_id="forest",
        source="sim" if simulated else "live",
        simulated=simulated,
        features=features,
        columns=program.columns,
        probe=probe(program),
        bars=bars,
        decision="1s",
        candidate=candidate,
        calibration=Calibration(0.0, 1.0),
        fees=Config().fees,
        train_window=(0, 0),
        symbols=NAMES,
        metrics={},
        verdict="edge" if verdict == "edge" else "no edge",
        reasons=(),
        tradeable=verdict == "edge",
        export_parity=ExportParity(0, 0.0, 1e-6),
        model_sha256=sha256(model),
        data_fingerprint="",
        git_sha=None,
        signals=tuple(layer.name for layer in program.signals),
    )


TAKER = Candidate("taker", "hgb", 10.0, 0.5, 0.0)
MAKER = Candidate("maker", "hgb", 10.0, 0.5, 0.0, 0.0, "through")


def write(
    folder: Path,
    candidate: Candidate = TAKER,
    verdict: str = "edge",
    simulated: bool = True,
    features: tuple[tuple[str, str], ...] = FEATURES,
    bars: str = BARS,
) -> Path:
    """A bundle on disk. Returns its folder."""
    model = to_onnx(forest(), features_metadata(features))
    write_bundle(folder, manifest_of(model, candidate, verdict, simulated, features, bars), model)
    return folder


def market(seconds: float, seed: int = 1, price: float = 50_000.0, symbol: str = "BTCUSDT") -> list[Event]:
    """Random quotes, prints, marks and a gap of one symbol, received 5 ms after they happened."""
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, int(seconds * 1e9), int(seconds * 12))) + BEGIN_NS
    mid, found = price, []
    for number, recv_ns in enumerate(np.unique(times).tolist()):
        mid += float(random.integers(-8, 9)) * 0.1
        bid, exch_ns = round(mid, 1), recv_ns - 5 * NS_PER_MS
        kind = random.random()
        if kind < 0.7:
            sizes = random.integers(1, 900, 2) / 1000
            found.append(Quote(symbol, exch_ns, recv_ns, number, bid, sizes[0], round(bid + 0.2, 1), sizes[1]))
        elif kind < 0.98:
            side = "buy" if random.random() < 0.5 else "sell"
            qty = random.integers(1, 300) / 1000
            at = round(bid + 0.2, 1) if side == "buy" else bid
            found.append(Trade(symbol, exch_ns, recv_ns, str(number), at, qty, side))  # type: ignore[arg-type]
        else:
            found.append(Mark(symbol, exch_ns, recv_ns, mid, None, 1e-4, None, None))
    middle = found[len(found) // 2].recv_ns
    found.append(Gap(symbol, "trades", middle - 1000, middle, "made up", False))
    return found
