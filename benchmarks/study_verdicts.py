"""How often does the pipeline say "edge"? Whole runs on simulated markets with and without a planted edge.

    python benchmarks/study_verdicts.py --seeds 10 --edge 0     a true null: "edge" is a false positive
    python benchmarks/study_verdicts.py --seeds 10              the default market: "no edge" is a miss

Each seed is a run of its own in a temporary folder over the direct transport (proven equal to the sockets), up to the
backtest. Prints one line per seed with the oracle beside the truth, then the counts with a 95 % Clopper-Pearson bound.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ["capture", "bars", "features", "labels", "train", "backtest"]


def run_seed(seed: int, pairs: list[str]) -> dict[str, Any]:
    """The report of one seed's run."""
    with tempfile.TemporaryDirectory(prefix="verdict-") as data:
        options = [word for pair in (*pairs, "sim.transport=direct") for word in ("--set", pair)]
        command = [
            sys.executable,
            str(ROOT / "run_pipeline.py"),
            *STAGES,
            "--data-dir",
            data,
            "--seed",
            str(seed),
            *options,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"seed {seed} failed with exit code {done.returncode}:\n{done.stderr}")
        latest = (Path(data) / "runs" / "latest.txt").read_text().strip()
        report: dict[str, Any] = json.loads((Path(data) / "runs" / latest / "report.json").read_text())
        return report


def line(seed: int, report: dict[str, Any], seconds: float) -> str:
    """One seed's verdict, its figures, and the oracle against the truth."""
    selection = report["selection"]
    winner = report["winner"]["candidate"] if "candidate" in report["winner"] else report["winner"]
    rule = f"{winner['kind']} {winner['family']} T={winner['horizon_s']:g}"
    figures = {name: selection[name] for name in ("z", "mean_net_bps", "deflated_sharpe")}
    shown = " ".join(f"{name}={'null' if value is None else f'{value:.2f}'}" for name, value in figures.items())
    shown += f" trades={selection['n_walk_forward']}+{selection['n_holdout']}"
    truth = json.dumps(report["truth"])
    return f"seed {seed}: {selection['verdict']:<8} {shown} | {rule} | truth {truth} | {seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds")
    parser.add_argument("--first", type=int, default=101, help="the first seed")
    parser.add_argument("--edge", type=float, default=None, help="sim.edge; the default market's without")
    parser.add_argument("--set", dest="pairs", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    pairs = given.pairs + ([] if given.edge is None else [f"sim.edge={given.edge}"])
    now = datetime.datetime.now(datetime.UTC)
    print(f"{platform.processor() or platform.machine()}, {now:%Y-%m-%d %H:%M} UTC, {pairs}")
    found = 0
    for seed in range(given.first, given.first + given.seeds):
        began = time.perf_counter()
        report = run_seed(seed, pairs)
        found += report["selection"]["verdict"] == "edge"
        print(line(seed, report, time.perf_counter() - began), flush=True)
    bounds = binomtest(found, given.seeds).proportion_ci(0.95)
    print(f"edge in {found} of {given.seeds}: {bounds.low:.2f} to {bounds.high:.2f} at 95 % | SIMULATED")


if __name__ == "__main__":
    main()
