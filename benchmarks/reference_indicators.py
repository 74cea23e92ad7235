"""Reference table: each indicator of the catalogue against a third party, or the formula of its paper.

    python -m venv .venv-references && .venv-references/bin/pip install -r benchmarks/requirements-references.txt
    python benchmarks/reference_indicators.py

A market of 6,000 bars of 200 ms is made up, with jumps, quiet bars, liquidations and twenty levels; the value is that
of the last bar. What a reference calls beside numpy and scipy stands behind its source, with the version. `apart` is
the difference over the larger of both. The last lines: the rows that differ by more than they may, VPIN of a million
trades. Exits 1 if there are such rows.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.references.every import REFERENCES
from benchmarks.references.windows import Reference
from research.catalogue import CATALOGUE, DEFINITIONS, EVERY_COLUMN
from research.language import compile_features
from research.programs.program import Floats, Ints
from tests.research.made_up_bars import BAR, rows_of, trading

ROOT: Final = Path(__file__).resolve().parents[1]
THEIRS: Final = ROOT / ".venv-references" / "bin" / "python"
BARS: Final = 6000
TRADES: Final = 1_000_000


def our_values(rows: Floats, index: Ints) -> dict[str, float]:
    texts = {f"f{k}": each.text or CATALOGUE[name] for k, (name, each) in enumerate(REFERENCES.items())}
    program = compile_features(texts, EVERY_COLUMN, BAR, CATALOGUE | DEFINITIONS)
    return dict(zip(REFERENCES, program.evaluate(rows, index, take=np.array([BARS - 1]))[0].tolist(), strict=True))


def their_values(rows: Floats, index: Ints) -> dict[str, tuple[float, str]]:
    python = THEIRS if THEIRS.exists() else Path(sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "columns.npz"
        np.savez(path, bar_index=index, **dict(zip(EVERY_COLUMN, rows.T, strict=True)))
        said = subprocess.run(
            [python, ROOT / "benchmarks" / "run_references.py", path],
            capture_output=True, text=True, check=False, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    if said.returncode:
        raise SystemExit(f"the references failed:\n{said.stderr}")
    values: dict[str, tuple[float, str]] = json.loads(said.stdout)
    return values


def line(name: str, each: Reference, ours: float, theirs: float | None, library: str) -> str:
    source = each.source.replace("|", "\\|") + f" | {library}"
    if theirs is None:
        return f"| {name} | {source} | – | {ours:.9g} | not installed |"
    return f"| {name} | {source} | {theirs:.9g} | {ours:.9g} | {apart(ours, theirs):.0e} |"


def apart(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(abs(ours), abs(theirs), 1e-300) if ours != theirs else 0.0


def vpin_line() -> str:
    """CPU time of the operator alone over trades as bars, the best of five."""
    rng = np.random.default_rng(7)
    flow = np.zeros((TRADES, 3))
    flow[np.arange(TRADES), rng.integers(0, 2, TRADES)] = rng.lognormal(0.0, 1.0, TRADES)
    flow[:, 2] = flow[:, :2].sum() / 1000  # a thousand buckets
    program = compile_features({"vpin": "(vpin_50 buy sell size)"}, ("buy", "sell", "size"))
    flow, last, taken = np.asfortranarray(flow), np.array([TRADES - 1]), []
    for _ in range(6):
        began = time.process_time()
        program.evaluate(flow, take=last)
        taken.append(time.process_time() - began)
    return f"VPIN of {TRADES:,} trades in 1,000 buckets: {1e3 * min(taken):.1f} ms"


def main() -> None:
    rows, index = rows_of(trading(BARS, seed=2))
    ours, theirs = our_values(rows, index), their_values(rows, index)
    print("| indicator | source | library | theirs | ours | apart |\n| --- | --- | --- | --- | --- | --- |")
    wrong = []
    for name, each in REFERENCES.items():
        value, library = theirs.get(name, (None, each.library))
        print(line(name, each, ours[name], value, library))
        if value is not None and not np.isclose(ours[name], value, rtol=each.rtol, atol=1e-10):
            wrong.append(name)
    print(f"\n{len(theirs)} of {len(REFERENCES)} references; {len(wrong)} differ: {', '.join(wrong) or 'none'}")
    print(vpin_line())
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
