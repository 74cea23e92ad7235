"""The mutation drill: leaks of one bar, off-by-ones and state not kept, put into operators; which test catches each?

    python benchmarks/drill_mutations.py [--only NAME ...]

Each mutation is a change of one place in the real code, made in a copy of the repository, where the operator's cases of
tests/research/test_operator_laws.py (laws that know nothing of what it computes) and of test_operators.py (slow twins)
then run. The laws alone must catch every leak; a wrong value that is always the same only a twin can see. Mutations of
a round have no code in common, so they share a copy, which is compiled anew: some minute a round.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
LAWS: Final = "tests/research/test_operator_laws.py"
TWINS: Final = "tests/research/test_operators.py"


@dataclass(frozen=True)
class Mutation:
    """`old`, which stands once in the file, becomes `new`; the laws' `cases` and `operator`'s twin run."""

    name: str
    what: str
    file: str
    old: str
    new: str
    operator: str
    cases: tuple[str, ...]
    round: int = 1


MUTATIONS: Final = (
    Mutation(
        "if_gt", "leak: then of the next bar", "research/machine/elementwise.py",
        "chosen = c[i] if a[i] > b[i] else d[i]", "chosen = c[min(i + 1, n - 1)] if a[i] > b[i] else d[i]", "if_gt",
        ("if_gt_0",),
    ),
    Mutation(
        "lag", "leak: k - 1 bars ago, but in the last row of a tile", "research/machine/rolling.py",
        "to[i] = x[i] - before if op == DELTA else before",
        "to[i] = x[i] - before if op == DELTA else ring[min(i + 1, x.size - 1)]", "lag",
        ("lag_7", "lag_70"),
    ),
    Mutation(
        "mean, short", "leak: the next bar's value enters", "research/machine/rolling_short.py",
        "now[i] = shift[i] = x[i]", "now[i] = shift[i] = x[min(i + 1, n - 1)]", "mean",
        ("mean_7",),
    ),
    Mutation(
        "zscore", "leak: of the next bar's value", "research/machine/rolling.py",
        "away = x[i] - shift[i] - mean", "away = x[min(i + 1, n - 1)] - shift[i] - mean", "zscore",
        ("zscore_70",),
    ),
    Mutation(
        "max", "leak: over w + 1 bars, the next one included", "research/machine/rolling_extremes.py",
        "best = max(best, max(third, keys[i + 3]))", "best = max(best, max(third, keys[min(i + 4, n - 1)]))", "max",
        ("max_70",),
    ),
    Mutation(
        "corr", "leak: the other series is one bar ahead", "research/machine/rolling_moments.py",
        "dx, dy = x[i] - shift, y[i] - shift_y\n        sx, sy, sxx, syy, sxy = sx + dx, sy + dy, sxx + dx * dx, "
        "syy + dy * dy, sxy + dx * dy\n        x_",
        "dx, dy = x[i] - shift, y[min(i + 1, n - 1)] - shift_y\n        sx, sy, sxx, syy, sxy = sx + dx, sy + dy, "
        "sxx + dx * dx, syy + dy * dy, sxy + dx * dy\n        x_", "corr",
        ("corr_7", "corr_70"),
    ),
    Mutation(
        "rank", "leak: the next bar is ranked", "research/machine/rolling_order.py",
        "old, new = ring[place], x[i] + 0.0", "old, new = ring[place], x[min(i + 1, n - 1)] + 0.0", "rank",
        ("rank_7", "rank_70"),
    ),
    Mutation(
        "ewm_mean", "leak: away from the next bar's value", "research/machine/recursive.py",
        "away = x[i] - mean", "away = x[min(i + 1, n - 1)] - mean", "ewm_mean",
        ("ewm_mean_7",),
    ),
    Mutation(
        "hmm", "leak: the next bar's odds", "research/machine/hmm.py",
        "odds = registers[code[line, A + k - 1], i]", "odds = registers[code[line, A + k - 1], i + 1]", "hmm",
        ("hmm_0", "hmm3_2", "hmm4_3"),
    ),
    Mutation(
        "vpin", "leak: the next bar's sells", "research/machine/volume_buckets.py",
        "volume = buy[i] + sell[i]", "volume = buy[i] + sell[min(i + 1, n - 1)]", "vpin",
        ("vpin_7", "vpin_70"),
    ),
    Mutation(
        "fracdiff", "leak: the ring is one bar ahead", "research/machine/fractal.py",
        "ring[place] = ring[place + window] = x[i]", "ring[place] = ring[place + window] = x[min(i + 1, n - 1)]",
        "fracdiff",
        ("fracdiff_7", "fracdiff_70"),
    ),
    Mutation(
        "argmax", "leak: places of the next bar", "research/machine/rolling_moments.py",
        "value = sign * x[i]\n", "value = sign * x[min(i + 1, x.size - 1)]\n", "argmax",
        ("argmax_7", "argmax_70"),
    ),
    Mutation(
        "sum, blocks", "off by one: the suffix of w + 1 bars", "research/machine/rolling.py",
        "total[i] += suffix[i + 1] + (left - i) * between", "total[i] += suffix[i] + (left - i) * between", "sum",
        ("sum_70",),
    ),
    Mutation(
        "run", "off by one: known one bar too soon", "research/machine/rolling_order.py",
        "seen = min(seen + 1, window) if now == now else 0", "seen = min(seen + 1, window) if now == now else 1", "run",
        ("run_7", "run_70"),
    ),
    Mutation(
        "std, blocks", "state: half of a group of four is dropped at the end of a tile", "research/machine/rolling.py",
        "memory[_BASE], memory[_PART], memory[_BASE2], memory[_PART2] = base, part, base2, part2",
        "memory[_BASE], memory[_PART], memory[_BASE2], memory[_PART2] = base, part, base2, 0.0", "std",
        ("std_70",), 2,
    ),
    Mutation(
        "ewm_std", "state: the spread is not kept from tile to tile", "research/machine/recursive.py",
        "memory[_WEIGHT], memory[_MEAN], memory[_M2], memory[_SEEN] = weight, mean, m2, seen",
        "memory[_WEIGHT], memory[_MEAN], memory[_M2], memory[_SEEN] = weight, mean, 0.0, seen", "ewm_std",
        ("ewm_std_7",), 2,
    ),
    Mutation(
        "hurst", "state: computed by the tile's rows, not by bar_index", "research/machine/fractal.py",
        "if (first_index + i) % hop == turn:", "if i % hop == turn:", "hurst",
        ("hurst_64", "hurst_70"),
    ),
    Mutation(
        "latest", "state: saved and not restored", "research/programs/program.py",
        '            state[begin:end] = saved["state"][first:last]',
        '            state[begin:end] = saved["state"][first:last] if last - first != 3 else np.nan', "latest",
        ("latest_7", "latest_70"), 3,
    ),
    Mutation(
        "decay", "gap: windows go on over it", "research/machine/interpreter.py",
        "            state[:] = np.nan\n", "            state[:] = state\n", "decay",
        ("decay_7", "decay_70"), 4,
    ),
)  # fmt: skip


def mutated(mutation: Mutation, root: Path = ROOT) -> str:
    """The file's text with the mutation in it. Raises ValueError where it does not fit the code any more."""
    text = (root / mutation.file).read_text()
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {mutation.old!r} must stand once in {mutation.file}: follow the code")
    return text.replace(mutation.old, mutation.new)


def caught_by(mutations: Sequence[Mutation], copy: Path, cache: Path) -> dict[str, list[str]]:
    """By mutation, the tests that fail with all of these in the copy of the repository."""
    for mutation in mutations:
        (copy / mutation.file).write_text(mutated(mutation, copy))
    chosen = " or ".join(sorted({case for each in mutations for case in (each.operator, *each.cases)}))
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", LAWS, TWINS, "-k", chosen],
        cwd=copy, env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    for mutation in mutations:
        shutil.copy2(ROOT / mutation.file, copy / mutation.file)
    if said.returncode not in (0, 1):
        raise RuntimeError(f"the tests could not run\n{said.stdout[-2000:]}{said.stderr[-2000:]}")
    failed = re.findall(r"^FAILED (\S+)::test_(\w+)\[([^\]]+)\]", said.stdout, re.MULTILINE)
    return {each.name: _by_test(each, failed) for each in mutations}


def _by_test(mutation: Mutation, failed: list[tuple[str, str, str]]) -> list[str]:
    """The tests whose cases are the mutation's, laws first."""
    laws = [name for file, name, case in failed if file == LAWS and case in mutation.cases]
    twins = [name for file, name, case in failed if file == TWINS and case == mutation.operator]
    return [*(f"law   {name}" for name in dict.fromkeys(laws)), *(f"twin  {name}" for name in dict.fromkeys(twins))]


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
    caught: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        copy, cache = _copied(Path(folder)), Path(folder) / "kernels"
        for number in sorted({mutation.round for mutation in chosen}):
            caught |= caught_by([each for each in chosen if each.round == number], copy, cache)
    for mutation in chosen:
        print(f"{mutation.name}: {mutation.what}")
        for test in caught[mutation.name] or ["NOT CAUGHT"]:
            print(f"    {test}")
    survived = [name for name, tests in caught.items() if not tests]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutations caught")
    sys.exit(bool(survived))


if __name__ == "__main__":
    main()
