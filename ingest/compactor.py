"""The thread that merges shards while capture goes on, and makes one file of each partition whose day is over.

Merging reads and writes for seconds; only the exchange of folders holds the lock that the writer of shards uses.
"""

import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from core.compaction import CannotExchangeError, clear_staging, merge, put_in_place, small_neighbours
from core.errors import StageError
from core.schema import EVENTS, GAPS
from core.shard_files import set_torn_aside, torn_text
from core.store import Partition, files, is_sealed, partitions, table_of

_LOOK_BACK_DAYS: Final = 3  # for what a capture that was killed left unmerged; `compact` does all


class Compactor:
    """Merges shards of partitions as they are named to it. `tail_of` gives the one that may be written again.

    `failure` is the bug that ended the thread, if one did.
    """

    def __init__(
        self,
        root: Path,
        lock: AbstractContextManager[Any],
        tail_of: Callable[[Partition], str],
        say: Callable[[str], None],
    ) -> None:
        self._root = root
        self._lock = lock
        self._tail_of = tail_of
        self._say = say
        self._jobs: queue.SimpleQueue[tuple[Partition, bool] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="compactor", daemon=True)
        self._said = ""
        self._gives_up = False
        self.failure: BaseException | None = None

    def start(self) -> None:
        clear_staging(self._root)
        self._thread.start()

    def consider(self, part: Partition, whole: bool) -> None:
        """Merge what is worth merging of a partition, or all of it: `whole`."""
        self._jobs.put((part, whole))

    def finish(self, parts: Iterable[Partition]) -> None:
        """Make one file of each of these, after what is under way. To be called when no more rows come."""
        self._gives_up = True
        self._jobs.put(None)
        self._thread.join()
        self._gives_up = False
        for part in parts:
            self.compact(part, whole=True)
        clear_staging(self._root)

    def compact(self, part: Partition, whole: bool) -> None:
        """Merge now. What the disk refuses is told once; the shards stay as they are."""
        try:
            with self._lock:
                if whole:  # a day that an earlier process left, where a power cut may have ended it
                    for path in set_torn_aside(self._root, part):
                        self._say(torn_text(path))
                tail = self._tail_of(part)
                paths = [path for path in files(self._root, part) if path.name != tail]
            sources = paths if whole else small_neighbours(paths)
            if len(sources) > 1 or (sources and not is_sealed(sources[0], table_of(part))):
                put_in_place(self._root, merge(self._root, part, sources), self._lock)
        except (OSError, StageError, pl.exceptions.PolarsError) as error:
            self._tell(error)

    def _work(self) -> None:
        try:
            for part in _left_behind(self._root):
                if not self._gives_up:
                    self.compact(part, whole=True)
            while (job := self._jobs.get()) is not None:
                if not self._gives_up:
                    self.compact(*job)
        except BaseException as error:
            self.failure = error

    def _tell(self, error: Exception) -> None:
        kind = f"{type(error).__name__} {getattr(error, 'errno', '')}"
        if kind != self._said:
            self._said = kind
            why = "this file system cannot exchange folders" if isinstance(error, CannotExchangeError) else str(error)
            self._say(f"shards are not merged, they stay as they are: {why}")


def _left_behind(root: Path) -> list[Partition]:
    """Partitions of the last days before today that a capture which was killed left in pieces."""
    today = datetime.now(UTC).date()
    days = {str(today - timedelta(days=back)) for back in range(1, _LOOK_BACK_DAYS + 1)}
    return [part for table in (*EVENTS, GAPS) for part in partitions(root, table) if part.date in days]
