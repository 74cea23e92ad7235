"""mlfinpy's volume bars on stored trades, in its own environment: prints seconds, bars and version as JSON.

    .venv-references/bin/python benchmarks/run_mlfinpy.py TRADES.csv SIZE

TRADES.csv has date_time, price, volume.
"""

import json
import sys
import time
from importlib.metadata import version

import pandas as pd
from mlfinpy.data_structure.standard_bars import get_volume_bars


def main() -> None:
    trades = pd.read_csv(sys.argv[1], parse_dates=["date_time"])
    began_s = time.process_time()
    bars = get_volume_bars(trades, threshold=float(sys.argv[2]), verbose=False)
    seconds = time.process_time() - began_s
    print(json.dumps({"seconds": seconds, "bars": len(bars), "version": version("mlfinpy")}))


if __name__ == "__main__":
    main()
