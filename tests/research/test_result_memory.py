"""Results in memory that served earlier ones."""

import mmap
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from research.language import compile_features
from research.programs import result_memory
from research.programs.result_memory import uninitialised

SHAPE = (3, 1 << 20)
"""24 MiB."""


def address(array: result_memory.Floats) -> int:
    return array.ctypes.data


def test_memory_of_a_result_that_is_gone_serves_the_next() -> None:
    first = uninitialised(SHAPE)
    place = address(first)
    del first
    assert address(uninitialised(SHAPE)) == place


def test_memory_is_not_handed_on_while_anything_looks_at_it() -> None:
    first = uninitialised(SHAPE)
    first[:] = 7.0
    view = first.T[5:9, 1]  # a view of a view of it
    del first
    others = [uninitialised(SHAPE) for _ in range(3)]
    for other in others:
        other[:] = -1.0
    assert_array_equal(view, np.full(4, 7.0))


def test_results_at_the_same_time_never_share_memory() -> None:
    kept = [uninitialised(SHAPE) for _ in range(4)]
    assert len({address(each) for each in kept}) == 4
    assert all(each.shape == SHAPE and each.flags.c_contiguous and each.flags.writeable for each in kept)


def test_a_small_result_does_not_take_a_large_piece_of_memory() -> None:
    large = uninitialised((40, 1 << 20))
    place = address(large)
    del large
    assert address(uninitialised((10, 1 << 20))) != place


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_memory, "_KEPT_BYTES", 60 << 20)
    spare = result_memory._SPARE
    monkeypatch.setattr(spare, "_pieces", [])
    several = [uninitialised(SHAPE) for _ in range(5)]
    del several
    assert [len(piece) for piece in spare._pieces] == [24 << 20] * 2


@pytest.mark.parametrize(("physical_gib", "kept_gib"), [(1, 0.125), (4, 0.5), (8, 1.0), (512, 1.0)])
def test_a_small_machine_keeps_less(physical_gib: int, kept_gib: float) -> None:
    assert result_memory._bound_bytes(physical_gib << 30) == int(kept_gib * 2**30)


@contextmanager
def address_space(more: int) -> Iterator[None]:
    """This process may map so many bytes more."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_spare_memory_goes_before_a_result_finds_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_memory, "_KEPT_BYTES", 1 << 30)
    spare = result_memory._SPARE
    monkeypatch.setattr(spare, "_pieces", [])
    several = [uninitialised((16, 1 << 20)) for _ in range(4)]
    del several
    with address_space(256 << 20):
        result = uninitialised((60, 1 << 20))
        assert result.nbytes == 480 << 20
        assert not spare._pieces
        with pytest.raises(MemoryError, match="2048 MiB"):
            uninitialised((256, 1 << 20))


class WithoutMarks(mmap.mmap):
    """Memory of a kernel built without huge pages and too old for MADV_FREE."""

    def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
        raise OSError(22, "Invalid argument")


def test_a_kernel_that_knows_no_marks_hands_out_memory_and_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "mmap", WithoutMarks)
    spare = result_memory._SPARE
    monkeypatch.setattr(spare, "_pieces", [])
    array = uninitialised(SHAPE)
    array[:] = 1.0
    del array
    assert not spare._pieces


def test_an_evaluation_in_used_memory_gives_the_same_bits() -> None:
    program = compile_features({"mean": "(mean_20 a)", "twice": "(add a a)"}, ["a"])
    rows = np.random.default_rng(1).normal(size=(400_000, 1))
    first = program.evaluate(rows)
    wanted, place = np.array(first), address(first)
    first[:] = 5.0
    del first
    again = program.evaluate(rows)
    assert address(again) == place
    assert_array_equal(again, wanted)
