"""The mutation drill: leaks of one bar, off-by-ones and state not kept, put into operators; which test catches each?

    python benchmarks/drill_mutations.py [--only NAME ...]

Each mutation is a change of one place in the real code, made in a copy of the repository, where the operator's own
cases of tests/research/test_operator_laws.py (laws that know nothing of what it computes) and of test_operators.py
(slow twins) then run. The laws alone must catch every leak; a wrong value that is always the same only a twin can see.
Some half a minute each: the machine is compiled anew.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
LAWS: Final = "tests/research/test_operator_laws.py"
TWINS: Final = "tests/research/test_operators.py"


@dataclass(frozen=True)
class Mutation:
    """`old`, which stands once in the file, becomes `new`; the tests of `operator` run."""

    name: str
    what: str
    file: str
    old: str
    new: str
    operator: str


MUTATIONS: Final = (
    Mutation(
        "if_gt", "leak: then of the next bar", "research/elementwise.py",
        "chosen = c[i] if a[i] > b[i] else d[i]", "chosen = c[min(i + 1, n - 1)] if a[i] > b[i] else d[i]", "if_gt",
    ),
    Mutation(
        "lag", "leak: k - 1 bars ago, but in the last row of a tile", "research/rolling.py",
        "to[i] = x[i] - before if op == DELTA else before",
        "to[i] = x[i] - before if op == DELTA else ring[min(i + 1, x.size - 1)]", "lag",
    ),
    Mutation(
        "mean, short", "leak: the next bar's value enters", "research/rolling_short.py",
        "now[i] = shift[i] = x[i]", "now[i] = shift[i] = x[min(i + 1, n - 1)]", "mean",
    ),
    Mutation(
        "zscore", "leak: of the next bar's value", "research/rolling.py",
        "away = x[i] - shift[i] - mean", "away = x[min(i + 1, n - 1)] - shift[i] - mean", "zscore",
    ),
    Mutation(
        "max", "leak: over w + 1 bars, the next one included", "research/rolling_extremes.py",
        "best = max(best, max(third, keys[i + 3]))", "best = max(best, max(third, keys[min(i + 4, n - 1)]))", "max",
    ),
    Mutation(
        "corr", "leak: the other series is one bar ahead", "research/rolling_moments.py",
        "dx, dy = x[i] - shift, y[i] - shift_y\n        sx, sy, sxx, syy, sxy = sx + dx, sy + dy, sxx + dx * dx, "
        "syy + dy * dy, sxy + dx * dy\n        x_",
        "dx, dy = x[i] - shift, y[min(i + 1, n - 1)] - shift_y\n        sx, sy, sxx, syy, sxy = sx + dx, sy + dy, "
        "sxx + dx * dx, syy + dy * dy, sxy + dx * dy\n        x_", "corr",
    ),
    Mutation(
        "rank", "leak: the next bar is ranked", "research/rolling_order.py",
        "old, new = ring[place], x[i] + 0.0", "old, new = ring[place], x[min(i + 1, n - 1)] + 0.0", "rank",
    ),
    Mutation(
        "ewm_mean", "leak: away from the next bar's value", "research/recursive.py",
        "away = x[i] - mean", "away = x[min(i + 1, n - 1)] - mean", "ewm_mean",
    ),
    Mutation(
        "hmm", "leak: the next bar's odds", "research/hmm.py",
        "p = to[i] = _updated(p, odds[i])", "p = to[i] = _updated(p, odds[min(i + 1, n - 1)])", "hmm",
    ),
    Mutation(
        "vpin", "leak: the next bar's sells", "research/volume_buckets.py",
        "volume = buy[i] + sell[i]", "volume = buy[i] + sell[min(i + 1, n - 1)]", "vpin",
    ),
    Mutation(
        "fracdiff", "leak: the ring is one bar ahead", "research/fractal.py",
        "ring[place] = ring[place + window] = x[i]", "ring[place] = ring[place + window] = x[min(i + 1, n - 1)]",
        "fracdiff",
    ),
    Mutation(
        "argmax", "leak: places of the next bar", "research/rolling_moments.py",
        "value = sign * x[i]\n", "value = sign * x[min(i + 1, x.size - 1)]\n", "argmax",
    ),
    Mutation(
        "sum, blocks", "off by one: the suffix of w + 1 bars", "research/rolling.py",
        "total[i] += suffix[i + 1] + (left - i) * between", "total[i] += suffix[i] + (left - i) * between", "sum",
    ),
    Mutation(
        "run", "off by one: known one bar too soon", "research/rolling_order.py",
        "seen = min(seen + 1, window) if now == now else 0", "seen = min(seen + 1, window) if now == now else 1", "run",
    ),
    Mutation(
        "std, blocks", "state: half of a group of four is dropped at the end of a tile", "research/rolling.py",
        "memory[_BASE], memory[_PART], memory[_BASE2], memory[_PART2] = base, part, base2, part2",
        "memory[_BASE], memory[_PART], memory[_BASE2], memory[_PART2] = base, part, base2, 0.0", "std",
    ),
    Mutation(
        "ewm_std", "state: the spread is not kept from tile to tile", "research/recursive.py",
        "memory[_WEIGHT], memory[_MEAN], memory[_M2], memory[_SEEN] = weight, mean, m2, seen",
        "memory[_WEIGHT], memory[_MEAN], memory[_M2], memory[_SEEN] = weight, mean, 0.0, seen", "ewm_std",
    ),
    Mutation(
        "hurst", "state: computed by the tile's rows, not by bar_index", "research/fractal.py",
        "if (first_index + i) % hop == 0:", "if i % hop == 0:", "hurst",
    ),
    Mutation(
        "latest", "state: saved and not restored", "research/program.py",
        '            self._state[begin:end] = saved["state"][first:last]',
        '            self._state[begin:end] = saved["state"][first:last] if last - first != 3 else np.nan', "latest",
    ),
    Mutation(
        "decay", "gap: windows go on over it", "research/interpreter.py",
        "            state[:] = np.nan\n", "            state[:] = state\n", "decay",
    ),
)  # fmt: skip


def mutated(mutation: Mutation, root: Path = ROOT) -> str:
    """The file's text with the mutation in it. Raises ValueError where it does not fit the code any more."""
    text = (root / mutation.file).read_text()
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {mutation.old!r} must stand once in {mutation.file}: follow the code")
    return text.replace(mutation.old, mutation.new)


def caught_by(mutation: Mutation, copy: Path, cache: Path) -> dict[str, int]:
    """Names of the tests that fail with a mutation in the copy of the repository, and in how many cases."""
    original = (copy / mutation.file).read_bytes()
    (copy / mutation.file).write_text(mutated(mutation, copy))
    try:
        said = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", LAWS, TWINS, "-k", mutation.operator],
            cwd=copy, env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        (copy / mutation.file).write_bytes(original)
    if said.returncode not in (0, 1):
        raise RuntimeError(f"{mutation.name}: the tests could not run\n{said.stdout[-2000:]}{said.stderr[-2000:]}")
    caught: dict[str, int] = {}
    for file, name in re.findall(r"^FAILED (\S+)::test_(\w+)", said.stdout, re.MULTILINE):
        who = f"{'law ' if file == LAWS else 'twin'}  {name}"
        caught[who] = caught.get(who, 0) + 1
    return caught


def _copied(folder: Path) -> Path:
    copy = folder / "repository"
    for name in ("core", "research", "tests", "benchmarks", "ingest", "labels"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", copy)
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[mutation.name for mutation in MUTATIONS])
    chosen = [mutation for mutation in MUTATIONS if mutation.name in parser.parse_args().only]
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        copy, cache = _copied(Path(folder)), Path(folder) / "kernels"
        for mutation in chosen:
            began = time.monotonic()
            caught = caught_by(mutation, copy, cache)
            survived += [] if caught else [mutation.name]
            print(f"{mutation.name}: {mutation.what} ({time.monotonic() - began:.0f} s)")
            for who, count in caught.items() or [("NOT CAUGHT", 0)]:
                print(f"    {who} ({count})", flush=True)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutations caught")
    sys.exit(bool(survived))


if __name__ == "__main__":
    main()
