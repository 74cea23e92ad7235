"""Scaling exponents, entropies and regimes: our kernels beside the libraries that researchers use, in one run.

    python -m venv .venv-references && .venv-references/bin/pip install -r benchmarks/requirements-references.txt
    .venv-references/bin/python benchmarks/bench_fractal.py [POINTS]

CPU time of one call on one thread, warm, the best of some, over POINTS (10,000) values of noise; sample entropy takes a
fifth of them, since it costs their square. Two to four hidden states are fitted to ten times as many. Values stand
beside the times, and must be near each other: definitions differ in small-sample corrections and in how boxes are
averaged. In an environment without the libraries ours are measured alone.
"""

import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Of its own: another numba than the pipeline's would throw the pipeline's away.
os.environ.setdefault("NUMBA_CACHE_DIR", os.path.join(tempfile.gettempdir(), "bench_fractal_kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit
from research.fitting.regimes import fit_regimes
from research.machine import fractal
from research.machine.interpreter import TILE

Floats = NDArray[np.float64]
POINTS: Final = 10_000
_LEAST_S: Final = 0.5  # spent on each, and three calls at least


def compiled(kernel: Callable[..., float]) -> Callable[..., float]:
    """A kernel that others call, as one to be called from here."""
    return njit(nogil=True, error_model="numpy")(lambda *operands: kernel(*operands))  # type: ignore[no-any-return]


def best_s(work: Callable[[], Any]) -> float:
    """CPU seconds of the fastest of some calls, after one that does not count."""
    work()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < _LEAST_S:
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


def boxes(n: int) -> list[int]:
    """The sizes of boxes that our DFA takes."""
    sizes, size = [], 4
    while size <= n // 4:
        sizes.append(size)
        size += size // 2
    return sizes


def their_dfa(x: Floats) -> float:
    from MFDFA import MFDFA

    sizes, found = MFDFA(x, np.array(boxes(x.size)), order=1, q=2)
    return float(np.polyfit(np.log(sizes), np.log(found[:, 0]), 1)[0])


def nolds_dfa(x: Floats) -> float:
    import nolds

    return float(nolds.dfa(x, nvals=boxes(x.size), overlap=False, order=1))


def nolds_hurst(x: Floats) -> float:
    import nolds

    sizes = [2**k for k in range(3, 20) if 2**k <= x.size // 4]
    return float(nolds.hurst_rs(x, nvals=sizes, fit="poly", unbiased=False))


def antropy_of(name: str, **settings: Any) -> Callable[[Floats], float]:
    def call(x: Floats) -> float:
        import antropy

        return float(getattr(antropy, name)(x, **settings))

    return call


def our_regimes(x: Floats, states: int) -> float:
    """Of four starts."""
    return float(fit_regimes(x[:, None], np.arange(x.size) == 0, states).mean[-1, 0])


def their_regimes(x: Floats, states: int) -> float:
    """Of one start, which may end in a lesser maximum."""
    from hmmlearn.hmm import GaussianHMM

    return float(GaussianHMM(states, n_iter=200, tol=1e-7 * x.size, random_state=1).fit(x[:, None]).means_.max())


def regimes_of(n: int, states: int) -> Floats:
    """Observations of states two deviations apart that last 50 bars and are followed by the next."""
    rng = np.random.default_rng(2)
    state = np.repeat(np.arange(n) % states, rng.geometric(1 / 50, n))[:n]
    return rng.normal(2.0 * state, np.linspace(0.6, 1.0, states)[state])


def measure(
    title: str, x: Floats, ours: Callable[[Floats], float], theirs: dict[str, Callable[[Floats], float]]
) -> None:
    """Print one line of ours and one of each of theirs that is installed."""
    ours_s = best_s(lambda: ours(x))
    print(f"{title}, {x.size:,} values: {1e3 * ours_s:.3f} ms, {ours(x):.4f}")
    for library, call in theirs.items():
        if find_spec(library.split(".")[0]):
            theirs_s = best_s(lambda call=call: call(x))  # type: ignore[misc]
            print(f"  {library}: {1e3 * theirs_s:.3f} ms, {call(x):.4f}; ratio {theirs_s / ours_s:.1f}x")


def main() -> None:
    warnings.simplefilter("ignore")  # the libraries' own
    n = int(sys.argv[1]) if len(sys.argv) > 1 else POINTS
    machine = platform.processor() or platform.machine()
    print(f"{datetime.now(UTC):%Y-%m-%d} | {machine}, {os.cpu_count()} cores | one thread, CPU time")
    x = np.random.default_rng(1).normal(size=n)
    work, lines = np.empty(n), np.empty((5, TILE))
    dfa, entropy = compiled(fractal.dfa), compiled(fractal.sample_entropy)
    measure("DFA", x, lambda x: dfa(x, work), {"MFDFA": their_dfa, "nolds": nolds_dfa})
    hurst = compiled(fractal.hurst)
    measure("Hurst, R/S", x, lambda x: hurst(x, work, lines), {"nolds": nolds_hurst})
    higuchi = compiled(fractal.higuchi_dimension)
    measure("Higuchi's dimension", x, higuchi, {"antropy": antropy_of("higuchi_fd", kmax=10)})
    measure(
        "permutation entropy", x, compiled(fractal.permutation_entropy),
        {"antropy": antropy_of("perm_entropy", order=3, normalize=True)},
    )  # fmt: skip
    measure("sample entropy", x[: n // 5], entropy, {"antropy": antropy_of("sample_entropy", order=2)})
    for states in (2, 3, 4):
        x = regimes_of(10 * n, states)
        ours, theirs = partial(our_regimes, states=states), {"hmmlearn": partial(their_regimes, states=states)}
        measure(f"{states} regimes, upper mean", x, ours, theirs)


if __name__ == "__main__":
    main()
