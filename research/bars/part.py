"""How the parts of the pass over events are compiled: each into the kernel that needs it, by LLVM.

A part has no entry from Python and no place in the cache of its own, which would be a quarter of the time of compiling;
called from Python it is a plain function. Arrays are not counted as they are passed on (`_nrt`): the kernel's caller
holds them all, and the counts, which are atomic, took a quarter of the time of the pass. So parts make no arrays.
"""

from typing import Any, Final

from numba.extending import register_jitable

part: Final[Any] = register_jitable(
    nogil=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True
)
