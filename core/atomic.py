"""Files and folders that are whole or absent: written beside their place, then put there in one step."""

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_AT_FDCWD: Final = -100
_EXCHANGE: Final = 2  # RENAME_EXCHANGE of linux/fs.h
CANNOT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP})
"""What a file system says that cannot exchange names, or cannot hard-link."""


def put_file(target: Path, write: Callable[[Path], Any], fsync: bool = False) -> None:
    """Have `write` fill a `.part` neighbour, then put that in the place of `target`.

    Whatever `write` raises passes through; the draft is gone then, which gives back what it took of a full disk.
    `fsync`: on return the file outlives a power cut; without, it outlives the process, not the machine.
    """
    draft = Path(f"{target}.part")
    try:
        try:
            write(draft)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(draft)
        if fsync:
            sync(draft)
        replace(draft, target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    if fsync:
        sync(target.parent)


def replace(draft: Path, target: Path) -> None:
    """Put a file in the place of another.

    By exchange and removal: where a file is renamed over another one, ext4 begins to write it to the disk at once
    (auto_da_alloc), which takes three times the CPU and, for a file that is replaced each second, wears out the disk.
    """
    try:
        exchange(draft, target)
    except OSError:
        os.replace(draft, target)  # there was none, or the file system cannot exchange
    else:
        draft.unlink()


def exchange(one: Path, other: Path) -> None:
    """Exchange what two paths name, in one step (Linux 3.15; ext4, xfs, btrfs, tmpfs). Raises OSError."""
    rename = getattr(_LIBC, "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, "this C library has no renameat2", str(one))
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def sync(path: Path) -> None:
    """Have the disk hold a file's contents, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_LIBC: Final = ctypes.CDLL(None, use_errno=True)
