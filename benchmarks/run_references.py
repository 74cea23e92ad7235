"""The references' values, in an environment of their own: their libraries want other versions than the pipeline.

    python -m venv .venv-references && .venv-references/bin/pip install -r benchmarks/requirements-references.txt
    .venv-references/bin/python benchmarks/run_references.py COLUMNS.npz …     # reference_indicators.py calls it

Prints one JSON object: for each reference whose library is there what gives it, and a value per file.
"""

import json
import platform
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.references.every import REFERENCES
from benchmarks.references.windows import THIRD_PARTY, Bars, Reference, bars


def is_here(each: Reference) -> bool:
    return not each.package or find_spec(each.package) is not None


_packages = cache(packages_distributions)


def given_by(each: Reference) -> str:
    """The kind of a reference, of third parties with their version."""
    if not each.package:
        return each.kind
    if each.package in sys.stdlib_module_names:
        return f"{THIRD_PARTY}: Python {'.'.join(platform.python_version_tuple()[:2])}"
    package = _packages()[each.package][0]
    return f"{THIRD_PARTY}: {package} {version(package)}"


def values_at(markets: Sequence[Bars]) -> dict[str, tuple[str, list[float]]]:
    """What gives each reference whose library is here, and its values at the last bar of each market."""
    known = {name: each for name, each in REFERENCES.items() if is_here(each)}
    return {name: (given_by(each), [float(each.value(b)) for b in markets]) for name, each in known.items()}


def main() -> None:
    warnings.simplefilter("ignore")  # the libraries' own
    markets = []
    for path in sys.argv[1:]:
        with np.load(path) as columns:
            markets.append(bars(dict(columns)))
    print(json.dumps(values_at(markets)))


if __name__ == "__main__":
    main()
