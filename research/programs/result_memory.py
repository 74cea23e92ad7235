"""Memory for large results: that of one which nobody looks at any more serves the next.

The kernel clears pages before it hands them out: for 100 features of a million rows, 800 MB, a quarter of the time that
the features themselves take. So the memory of a result is kept when the last array that looks at it is gone, and marked
as free to take (madvise(2), MADV_FREE): the machine has it back whenever it runs short, and no earlier. A limit on
addresses (ulimit -v) knows no such mark: where it leaves no room for a fresh piece, the spare ones go first.
"""

import mmap
import os
import sys
import threading
import weakref
from contextlib import suppress
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

_LARGE_BYTES: Final = 4 << 20  # below that the allocator keeps what it was given back, by itself
_DOUBLE: Final = np.dtype(np.float64)


def _bound_bytes(physical: int) -> int:
    """What may be kept on a machine of so much memory."""
    return min(1 << 30, physical // 8)


_LINUX: Final = sys.platform == "linux"
_KEPT_BYTES: Final = _bound_bytes(os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE) if _LINUX else 0


def uninitialised(shape: tuple[int, int]) -> Floats:
    """An array of whatever its memory held before: `np.empty`, but for where large ones lie. MemoryError as there."""
    size = shape[0] * shape[1] * _DOUBLE.itemsize
    if size < _LARGE_BYTES or not _LINUX:
        return np.empty(shape)
    return np.asarray(_Lent(_SPARE.take(size), shape))


class _Lent:
    """What all arrays on a piece of memory hold on to; the memory is spare again when it goes."""

    def __init__(self, memory: mmap.mmap, shape: tuple[int, int]) -> None:
        address = np.frombuffer(memory, np.uint8).ctypes.data
        self.__array_interface__: dict[str, Any] = {
            "version": 3, "typestr": _DOUBLE.str, "shape": shape, "data": (address, False),
        }  # fmt: skip
        weakref.finalize(self, _SPARE.give_back, memory).atexit = False


class _Spare:
    """Pieces of memory that serve nobody, the latest last."""

    def __init__(self) -> None:
        self._pieces: list[mmap.mmap] = []
        self._lock = threading.RLock()  # the collector may give one back in the middle of anything

    def take(self, size: int) -> mmap.mmap:
        """The smallest piece that holds `size` bytes and is less than twice as large, or a fresh one."""
        with self._lock:
            fitting = [piece for piece in self._pieces if size <= len(piece) < 2 * size]
            if fitting:
                smallest = min(fitting, key=len)
                self._pieces = [piece for piece in self._pieces if piece is not smallest]
                return smallest
        return self._fresh(size)

    def _fresh(self, size: int) -> mmap.mmap:
        try:
            return _mapped(size)
        except OSError:  # ENOMEM
            with self._lock:
                self._pieces.clear()
        try:
            return _mapped(size)
        except OSError as error:
            raise MemoryError(f"no room for a result of {size / 2**20:.0f} MiB: {error.strerror}") from error

    def give_back(self, piece: mmap.mmap) -> None:
        """Keep a piece, and let go of the oldest where they are too many."""
        try:
            piece.madvise(mmap.MADV_FREE)
        except OSError:
            return  # nobody could take it from us again: let go of it
        with self._lock:
            self._pieces.append(piece)
            while sum(map(len, self._pieces)) > _KEPT_BYTES:
                del self._pieces[0]


def _mapped(size: int) -> mmap.mmap:
    """Fresh memory, in huge pages where the kernel has them. Raises OSError where there is no room."""
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # EINVAL of a kernel built without
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


_SPARE: Final = _Spare()
