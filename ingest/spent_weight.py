"""What was spent of the budgets of five minutes, kept between runs: cron starts a poll before the last one's is over.

Budgets of a minute and less are over by then, and a venue's own count tells of the rest.
"""

import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

import msgspec

from core.errors import StageError
from core.store import write_atomic
from ingest.rate_limit import RateLimiter

_FILE: Final = "poll_spent.json"
_LONGER_THAN_S: Final = 60.0


def keep_spent(limiter: RateLimiter, root: Path) -> None:
    """Note the weight spent in each second (Unix time), by pool. Nothing is written where nothing was."""
    now_s = time.time()
    spent: dict[str, dict[int, float]] = {}
    for name, amounts in limiter.spent(_LONGER_THAN_S).items():
        seconds = spent[name] = defaultdict(float)
        for age_s, weight in amounts:
            seconds[math.ceil(now_s - age_s)] += weight
    if spent:
        write_atomic(root / _FILE, msgspec.json.encode(spent))


def resume_spent(limiter: RateLimiter, root: Path) -> None:
    """Count what an earlier run spent. Raises StageError for a file that is not ours."""
    path, now_s = root / _FILE, time.time()
    try:
        noted = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[int, float]])
    except FileNotFoundError:
        return
    except msgspec.DecodeError as error:
        raise StageError(f"{path} is damaged ({error}): delete it") from error
    for name, seconds in noted.items():
        limiter.resume(name, [(max(0.0, now_s - at_s), weight) for at_s, weight in sorted(seconds.items())])
