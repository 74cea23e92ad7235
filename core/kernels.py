"""Compiled kernels, with a cache that knows what a kernel calls.

numba's cache notes when a kernel's own file changed, not when the files of the kernels it calls did: after a change of
labels/fills.py a cached labels/grid.py would go on with the old fill rules, without a word. So each kernel's cache lies
in a folder named after the text of its file and of all that this file imports of ours: `.kernels/<module>-<digest>`.
Where that cannot be had, kernels are compiled and not kept. numba on its own would keep them elsewhere, and forget.
"""

import gc
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import numba
from numba.core import event
from numba.extending import register_jitable

from core.compile_notice import NOTICE

ROOT: Final = Path(__file__).resolve().parents[1]
CACHE: Final = Path(os.environ.get("NUMBA_CACHE_DIR") or ROOT / ".kernels")
UNWRITABLE: Final = "{} cannot be written to: kernels are compiled at every start; NUMBA_CACHE_DIR names another folder"
OVERTAKEN: Final = "source files changed after this process began: kernels it loads from now on are compiled, not kept"
_IMPORT: Final = re.compile(rb"^(?:from|import) ([a-z_][\w.]*)(?: import ([\w, ]+|\([^)]*\)))?", re.MULTILINE)


class _Compilations(event.Listener):
    """Passes on when numba compiles, and puts the garbage collector off meanwhile: it would take a ninth of the time to
    find over and over that what numba builds is still in use."""

    def __init__(self) -> None:
        self._depth, self._was_collecting = 0, False

    def on_start(self, event: object) -> None:
        NOTICE.on_start(event)
        if self._depth == 0:
            self._was_collecting = gc.isenabled()
            gc.disable()
        self._depth += 1

    def on_end(self, event: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._was_collecting:
            gc.enable()
        NOTICE.on_end(event)


event.register("numba:compile", _Compilations())  # type: ignore[no-untyped-call]


def njit(**options: Any) -> Any:
    """`numba.njit` whose cache is fresh, or none. Raises what numba raises."""

    def compiled(function: Callable[..., Any]) -> Any:
        folder = cache_folder(Path(function.__code__.co_filename))
        if folder is None:
            return numba.njit(**options | {"cache": False})(function)
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
        return numba.njit(**options)(function)

    return compiled


def njit_inner(**options: Any) -> Any:
    """A kernel that only other kernels call: theirs is the machine code that holds it. An entry from Python and a place
    in the cache would be a quarter of the time of compiling; called from Python it is a plain function."""
    return register_jitable(no_cfunc_wrapper=True, no_cpython_wrapper=True, **options)


@cache
def cache_folder(file: Path, root: Path = ROOT, folder: Path = CACHE) -> Path | None:
    """Where kernels of a file are cached; None where they cannot be. Folders of what it was before are removed."""
    name = ".".join(file.resolve().relative_to(root).with_suffix("").parts) if file.is_relative_to(root) else file.stem
    texts = _texts(file, root)
    if any(_changed_since_start(path) for path in texts):
        return _say_once(OVERTAKEN)
    wanted = folder / f"{name}-{_hash(texts)}"
    if not _takes_files(wanted):
        return _say_once(UNWRITABLE.format(folder))
    for old in folder.glob(f"{name}-*"):
        if old != wanted:
            shutil.rmtree(old, ignore_errors=True)  # another process may be at the same
    return wanted


def digest(file: Path, root: Path = ROOT) -> str:
    """A hash of the text of a file and of the files under `root` that it imports, at any remove."""
    return _hash(_texts(file, root))


def _texts(file: Path, root: Path) -> dict[Path, bytes]:
    """A file and the files under `root` that it imports, at any remove: what they hold."""
    seen: dict[Path, bytes] = {}
    ahead = [file]
    while ahead:
        path = ahead.pop()
        if path not in seen:
            seen[path] = path.read_bytes()
            ahead += _imported(seen[path], root)
    return seen


def _hash(texts: dict[Path, bytes]) -> str:
    return hashlib.blake2b(b"".join(texts[path] for path in sorted(texts)), digest_size=8).hexdigest()


def _imported(text: bytes, root: Path) -> list[Path]:
    """The files under `root` that a text names: a module, or modules of a package (`from package import module`)."""
    named = [(source.decode(), names.decode()) for source, names in _IMPORT.findall(text)]
    modules = [source for source, _ in named]
    for source, names in named:
        modules += [f"{source}.{name.split()[0]}" for name in names.strip("()").split(",") if name.strip()]
    paths = (root.joinpath(*module.split(".")).with_suffix(".py") for module in modules)
    return [path for path in paths if path.is_file()]


def _takes_files(folder: Path) -> bool:
    """Whether numba can write there, asked as numba asks."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _changed_since_start(path: Path) -> bool:
    """Whether what this process has in memory of a file may be older than the file. The time of the inode tells, since
    a copy may bring the time of its content with it."""
    return path.stat().st_ctime_ns >= _STARTED_NS


def _process_start_ns() -> int:
    """When this process began, by the clock that stamps files; where nothing tells, now. proc(5), field 22, names the
    tick it began in: its end is later than what was written for this process, and sooner than the interpreter reads."""
    try:
        ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    except OSError:
        return time.time_ns()
    boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return boot_ns + (ticks + 1) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


_STARTED_NS: Final = _process_start_ns()


@cache
def _say_once(text: str) -> None:
    NOTICE.tell(text)
