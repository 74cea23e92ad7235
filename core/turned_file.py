"""A small file that is replaced again and again, readable whole at any moment, at a fifth of what a new file costs.

Making a file and removing the one it replaces takes 110 to 160 us of CPU on ext4, whatever its size; writing one that
is there takes 10, exchanging the names of two another 10 (2026-11-21, Linux 6.18). So two files take turns: the one
that was replaced is kept aside and written over the next time, if nobody reads it. Linux tells: a write lease
(F_SETLEASE of fcntl(2)) is granted only on a file that nobody else has open or mapped, and who opens it while it is
held waits until it is given up, a fraction of a millisecond later. Where it is not granted, for whatever reason, a new
file is made.
"""

import errno
import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from core.atomic import CANNOT, exchange, put_file, sync

_GO_ON: Final = CANNOT | {errno.ENOENT}  # there is nothing to exchange with, or it cannot be: a rename will do


class TurnedFile:
    """The file at `target`. `spare` is where the other one is kept: on the same file system, in another folder, since
    readers take all files of a table's folder for rows."""

    def __init__(self, target: Path, spare: Path) -> None:
        self._target = target
        self._spare = spare
        self._is_there = False

    def put(self, content: bytes, fsync: bool = False) -> None:
        """Have the file hold `content`. Raises OSError; the file is as it was then, and the other one gone.

        `fsync`: on return it outlives a power cut; without, it outlives the process, not the machine.
        """
        try:
            self._write_spare(content, fsync)
            self._turn()
        except OSError as error:
            self.drop_spare()
            if error.errno != errno.EXDEV:
                raise
            put_file(self._target, lambda draft: draft.write_bytes(content), fsync)
        self._is_there = True
        if fsync:
            sync(self._target.parent)

    def drop_spare(self) -> None:
        """Give back what the other file takes."""
        with suppress(OSError):
            os.unlink(self._spare)

    def _write_spare(self, content: bytes, fsync: bool) -> None:
        descriptor = self._open_unread() or self._create()
        try:
            _write_over(descriptor, content)
            if fsync:
                os.fsync(descriptor)
            with suppress(OSError):  # a process that was forked meanwhile would hold the lease on
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        finally:
            os.close(descriptor)

    def _open_unread(self) -> int:
        """The spare file, leased; 0 where there is none, or where somebody may read it, by another name too: a backup
        that links files wants them as they are.
        """
        try:
            descriptor = os.open(self._spare, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # not SIGIO, which kills who does not expect it
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            if os.fstat(descriptor).st_nlink > 1:
                raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), str(self._spare))
        except OSError:
            os.close(descriptor)
            os.unlink(self._spare)
            return 0
        return descriptor

    def _create(self) -> int:
        how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(self._spare, how, 0o666)
        except FileNotFoundError:
            self._spare.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._spare, how, 0o666)

    def _turn(self) -> None:
        """Put the spare file in the place of the other."""
        try:
            if self._is_there:
                exchange(self._spare, self._target)
                return
        except OSError as error:
            if error.errno not in _GO_ON:
                raise
        try:
            os.replace(self._spare, self._target)
        except FileNotFoundError:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._spare, self._target)


def _write_over(descriptor: int, content: bytes) -> None:
    """Make a file hold `content`. Its blocks are kept: a file that is emptied first is put to the disk by ext4."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    if os.fstat(descriptor).st_size > len(content):
        os.truncate(descriptor, len(content))
