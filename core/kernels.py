"""Compiled kernels, with a cache that knows what a kernel calls.

numba's cache notes when a kernel's own file changed, not when the files of the kernels it calls did: after a change of
labels/fills.py a cached labels/grid.py would go on with the old fill rules, without a word. So each kernel's cache lies
in a folder named after the text of its file and of all that this file imports of ours: `.kernels/<module>-<digest>`.
"""

import gc
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import numba
from numba.core import event
from numba.extending import register_jitable

from core.compile_notice import NOTICE

ROOT: Final = Path(__file__).resolve().parents[1]
CACHE: Final = Path(os.environ.get("NUMBA_CACHE_DIR", ROOT / ".kernels"))
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
    """`numba.njit` whose cache is fresh. Raises what numba raises."""

    def compiled(function: Callable[..., Any]) -> Any:
        numba.config.CACHE_DIR = str(cache_folder(Path(function.__code__.co_filename)))  # type: ignore[attr-defined]
        return numba.njit(**options)(function)

    return compiled


def njit_inner(**options: Any) -> Any:
    """A kernel that only other kernels call: theirs is the machine code that holds it. An entry from Python and a place
    in the cache would be a quarter of the time of compiling; called from Python it is a plain function."""
    return register_jitable(no_cfunc_wrapper=True, no_cpython_wrapper=True, **options)


@cache
def cache_folder(file: Path, root: Path = ROOT, folder: Path = CACHE) -> Path:
    """Where kernels of a file are cached. Folders of what the file was before are removed."""
    name = ".".join(file.resolve().relative_to(root).with_suffix("").parts) if file.is_relative_to(root) else file.stem
    wanted = folder / f"{name}-{digest(file, root)}"
    for old in folder.glob(f"{name}-*"):
        if old != wanted:
            shutil.rmtree(old, ignore_errors=True)  # another process may be at the same
    return wanted


def digest(file: Path, root: Path = ROOT) -> str:
    """A hash of the text of a file and of the files under `root` that it imports, at any remove."""
    seen: dict[Path, bytes] = {}
    ahead = [file]
    while ahead:
        path = ahead.pop()
        if path not in seen:
            seen[path] = path.read_bytes()
            ahead += _imported(seen[path], root)
    text = b"".join(seen[path] for path in sorted(seen))
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _imported(text: bytes, root: Path) -> list[Path]:
    """The files under `root` that a text names: a module, or modules of a package (`from package import module`)."""
    named = [(source.decode(), names.decode()) for source, names in _IMPORT.findall(text)]
    modules = [source for source, _ in named]
    for source, names in named:
        modules += [f"{source}.{name.split()[0]}" for name in names.strip("()").split(",") if name.strip()]
    paths = (root.joinpath(*module.split(".")).with_suffix(".py") for module in modules)
    return [path for path in paths if path.is_file()]
