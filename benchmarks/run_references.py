"""The references' values, in an environment of their own: their libraries want other versions than the pipeline.

    python -m venv .venv-references && .venv-references/bin/pip install -r benchmarks/requirements-references.txt
    .venv-references/bin/python benchmarks/run_references.py COLUMNS.npz      # reference_indicators.py calls it

Prints one JSON object: for each reference whose library is there its value and the library's version.
"""

import json
import sys
import warnings
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.references.every import REFERENCES
from benchmarks.references.windows import bars


def main() -> None:
    warnings.simplefilter("ignore")  # the libraries' own
    with np.load(sys.argv[1]) as columns:
        market = bars(dict(columns))
    values, packages = {}, packages_distributions()
    for name, each in REFERENCES.items():
        if not each.library or find_spec(each.library):
            package = packages[each.library or "numpy"][0]
            values[name] = (float(each.value(market)), f"{package} {version(package)}")
    print(json.dumps(values))


if __name__ == "__main__":
    main()
