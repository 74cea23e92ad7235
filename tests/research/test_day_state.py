"""The state at the end of a symbol-day, on disk."""

from pathlib import Path

import numpy as np

from core.store import Partition
from research.day_state import load_state, save_state, state_hash, state_inputs, state_path

DAY = Partition("bars", "bybit", "BTCUSDT", "2026-01-05", "volume_0.5")


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    arrays = {"clock": np.array("volume_0.5"), "row": np.array([1.0, np.nan]), "state": np.arange(3)}
    save_state(tmp_path, DAY, arrays, "abc")
    loaded = load_state(tmp_path, DAY)
    assert loaded is not None
    assert state_inputs(loaded) == "abc"
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert state_path(tmp_path, DAY).name == "volume_0.5.npz"


def test_equal_states_have_equal_bytes_and_hashes_whatever_they_were_built_from(tmp_path: Path) -> None:
    save_state(tmp_path / "a", DAY, {"row": np.ones(2)}, "one")
    save_state(tmp_path / "b", DAY, {"row": np.ones(2)}, "one")
    save_state(tmp_path / "c", DAY, {"row": np.ones(2)}, "two")
    save_state(tmp_path / "d", DAY, {"row": np.zeros(2)}, "one")
    paths = [state_path(tmp_path / name, DAY) for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    a, c, d = (state_hash(load_state(tmp_path / name, DAY)) for name in "acd")
    assert a == c != d


def test_no_state_and_a_damaged_one_are_none(tmp_path: Path) -> None:
    assert load_state(tmp_path, DAY) is None
    assert state_inputs(None) == ""
    save_state(tmp_path, DAY, {"row": np.ones(2)}, "one")
    path = state_path(tmp_path, DAY)
    for content in (b"", b"not a zip", path.read_bytes()[:50]):
        path.write_bytes(content)
        assert load_state(tmp_path, DAY) is None
