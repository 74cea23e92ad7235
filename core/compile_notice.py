"""Telling a user who waits that kernels are being compiled, which happens once after an update.

numba says when a compilation begins and ends (kernels.py passes it on); what comes from the cache says nothing. So
there is no message where there is no waiting, and none for a kernel or two. Here numba itself is not needed: a capture
runs without.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 2.0
"""What may pass in silence."""
MESSAGE: Final = "compiling kernels, once after an update: this stage may wait a minute, two on a slow or busy machine"


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class CompileNotice:
    """Tells once per stage, when compilations have taken `patience_s` together."""

    def __init__(self, patience_s: float = PATIENCE_S, tell: Callable[[str], None] = _to_stderr) -> None:
        self.tell = tell
        self._patience_s = self._left_s = patience_s
        self._depth = 0
        self._began_s = 0.0
        self._timer: threading.Timer | None = None

    def stage_begins(self) -> None:
        """Who was told in an earlier stage is told again."""
        self._left_s = self._patience_s

    def on_start(self, event: object) -> None:
        """numba compiles under a lock of its own: kernels that kernels call come inside, never beside."""
        self._depth += 1
        if self._depth == 1 and self._left_s > 0.0:
            self._began_s = time.monotonic()
            self._timer = threading.Timer(self._left_s, self._say)
            self._timer.daemon = True
            self._timer.start()

    def on_end(self, event: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left_s -= time.monotonic() - self._began_s

    def _say(self) -> None:
        self._left_s = 0.0
        self.tell(MESSAGE)


NOTICE: Final = CompileNotice()
