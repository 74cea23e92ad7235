"""Trials are a set, looks are numbered once."""

from pathlib import Path

import pytest

from core.errors import StageError
from research.ledger import Ledger, read_ledger, with_look, with_trials, write_ledger


def test_a_repeated_trial_adds_nothing() -> None:
    ledger = with_trials(with_trials(Ledger(), "data", {"a", "b"}), "data", {"b", "c"})
    assert ledger.trials == {"data": ["a", "b", "c"]}


def test_a_repeated_look_keeps_its_number_and_its_trials() -> None:
    ledger, first, known = with_look(with_trials(Ledger(), "data", {"a"}), "data", (0, 9), "one")
    ledger, second, _ = with_look(with_trials(ledger, "data", {"b"}), "data", (0, 9), "two")
    ledger, again, still = with_look(with_trials(ledger, "data", {"c"}), "data", (0, 9), "one")
    assert (first, second, again) == (1, 2, 1)
    assert (known, still) == (1, 1)


def test_another_interval_or_other_data_is_another_hold_out() -> None:
    ledger, _, _ = with_look(Ledger(), "data", (0, 9), "one")
    assert with_look(ledger, "data", (1, 10), "two")[1] == 1
    assert with_look(ledger, "other", (0, 9), "two")[1] == 1


def test_the_file_keeps_it_and_damage_is_named(tmp_path: Path) -> None:
    assert read_ledger(tmp_path) == Ledger()
    ledger = with_look(with_trials(Ledger(), "data", {"a"}), "data", (0, 9), "one")[0]
    write_ledger(tmp_path, ledger)
    assert read_ledger(tmp_path) == ledger
    (tmp_path / "ledger.json").write_text("{")
    with pytest.raises(StageError, match="damaged"):
        read_ledger(tmp_path)
