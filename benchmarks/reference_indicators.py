"""Reference table: each feature of the catalogue beside a third party, the formula of its paper, or its definition.

    python -m venv .venv-references && .venv-references/bin/pip install -r benchmarks/requirements-references.txt
    python benchmarks/reference_indicators.py

On the market of reference_market.py. Writes the values to references/golden.csv, which the tests compare with always,
and the page docs/references.md. What is not installed keeps the values that it gave before. Prints the page, the rows
that differ by more than they may and the time of VPIN over a million trades. Exits 1 if there are such rows, and writes
nothing then.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.reference_market import BARS, JOINED, ROWS, Market, columns_to, features_of, market
from benchmarks.references.every import REFERENCES
from benchmarks.references.windows import THIRD_PARTY, bars
from benchmarks.run_references import values_at
from research.catalogue import CATALOGUE
from research.language import compile_features
from research.programs.program import Floats

ROOT: Final = Path(__file__).resolve().parents[1]
GOLDEN: Final = ROOT / "benchmarks" / "references" / "golden.csv"
DOCS: Final = ROOT / "docs" / "references.md"
THEIRS: Final = ROOT / ".venv-references" / "bin" / "python"
SEED: Final = 2
TRADES: Final = 1_000_000
Given = tuple[str, list[float]]
"""What gives a reference, and its values at ROWS."""

HEAD: Final = f"""# References

Every feature of the catalogue beside another way to its value. This page is generated:
`python benchmarks/reference_indicators.py`. The tests compare our values with these at each run, whether or not a
library is installed, and call what is.

The market is made up (benchmarks/reference_market.py): {BARS:,} bars of 200 ms with jumps, quiet bars, liquidations and
twenty levels, another symbol beside them, ten days of slow series. Values are those of the last bar; `apart` is the
largest difference, over the larger of both, at the bars {", ".join(map(str, ROWS))}. It may be no more than `allowed`.

- **third party**: another project's function computes the statistic; what goes in and its unit are numpy's.
- **paper formula**: numpy, written from the formula of the paper that is named.
- **definition**: numpy, written from what the feature's line in the catalogue says.

numpy's and scipy's functions count as a third party's where they are the statistic (a correlation, a z-score).
"""


class Row(NamedTuple):
    """One reference as it is stored: what gives it, its values at ROWS, ours at the last of them, and how far apart
    they are."""

    by: str
    theirs: tuple[float, ...]
    ours: float
    apart: float


def our_values(made: Market) -> Floats:
    """(rows, references)."""
    named = CATALOGUE | JOINED
    return features_of(made, {f"f{k}": each.text or named[name] for k, (name, each) in enumerate(REFERENCES.items())})


def their_values(made: Market) -> dict[str, Given]:
    """Of what is installed here, of what is in their own environment, and what was stored before of the rest."""
    here = values_at([bars(columns_to(made, row)) for row in ROWS])
    before = {name: (each.by, list(each.theirs)) for name, each in stored().items() if name in REFERENCES}
    found = before | (_other_environment(made) if THEIRS.exists() else {}) | here
    if missing := [name for name in REFERENCES if name not in found]:
        raise SystemExit(
            f"not installed, and never stored: {', '.join(missing)}. How to install them: the head of {__file__}"
        )
    return found


def _other_environment(made: Market) -> dict[str, Given]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{row}.npz" for row in ROWS]
        for path, row in zip(paths, ROWS, strict=True):
            np.savez(path, **columns_to(made, row))
        said = subprocess.run(
            [THEIRS, ROOT / "benchmarks" / "run_references.py", *paths],
            capture_output=True, text=True, check=False, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    if said.returncode:
        raise SystemExit(f"the references failed:\n{said.stderr}")
    found: dict[str, Given] = json.loads(said.stdout)
    return found


def stored() -> dict[str, Row]:
    """What golden.csv holds, by name."""
    if not GOLDEN.exists():
        return {}
    with GOLDEN.open(newline="") as file:
        lines = list(csv.reader(file))[1:]
    return {
        name: Row(by, tuple(map(float, theirs)), float(ours), float(apart)) for name, by, *theirs, ours, apart in lines
    }


def store(rows: Mapping[str, Row]) -> None:
    with GOLDEN.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("reference", "by", *(f"theirs at {row}" for row in ROWS), f"ours at {ROWS[-1]}", "apart"))
        writer.writerows((name, each.by, *each.theirs, each.ours, f"{each.apart:.0e}") for name, each in rows.items())


def apart(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(abs(ours), abs(theirs), 1e-300) if ours != theirs else 0.0


def page(rows: Mapping[str, Row]) -> str:
    """The text of docs/references.md."""
    lines = [
        HEAD,
        *_totals(rows),
        "",
        "| reference | source | by | theirs | ours | apart | allowed |",
        "| --- " * 7 + "|",
    ]
    for name, each in rows.items():
        reference = REFERENCES[name]
        source = reference.source.replace("|", "\\|")
        figures = f"{each.theirs[-1]:.9g} | {each.ours:.9g} | {each.apart:.0e} | {reference.rtol:.0e}"
        lines.append(f"| {name} | {source} | {each.by} | {figures} |")
    return "\n".join(lines) + "\n"


def _totals(rows: Mapping[str, Row]) -> list[str]:
    kinds = Counter(REFERENCES[name].kind for name in rows)
    by = Counter(each.by.removeprefix(f"{THIRD_PARTY}: ") for each in rows.values() if each.by.startswith(THIRD_PARTY))
    libraries = ", ".join(f"{library} ({count})" for library, count in by.most_common())
    of = {name: f": {libraries}" if name == THIRD_PARTY else "" for name in kinds}
    return [
        "| kind | references |", "| --- | --- |",
        *(f"| {name}{of[name]} | {count} |" for name, count in kinds.most_common()),
        f"| all | {len(rows)} |",
    ]  # fmt: skip


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
    made = market(SEED)
    ours, given = our_values(made), their_values(made)
    rows, wrong = {}, []
    for (name, each), mine in zip(REFERENCES.items(), ours.T.tolist(), strict=True):
        by, theirs = given[name]
        rows[name] = Row(by, tuple(theirs), mine[-1], max(map(apart, mine, theirs)))
        if not np.allclose(mine, theirs, rtol=each.rtol, atol=1e-10):
            wrong.append(name)
    print(page(rows))
    print(f"{len(rows)} references; {len(wrong)} differ: {', '.join(wrong) or 'none'}\n{vpin_line()}")
    if wrong:
        sys.exit(1)
    store(rows)
    DOCS.write_text(page(stored()))


if __name__ == "__main__":
    main()
