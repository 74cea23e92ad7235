"""Trials are a set, looks are numbered once."""

from pathlib import Path

import msgspec
import pytest

from core.errors import StageError
from core.store import hash_of
from research.learning.ledger import Data, Ledger, n_trials, read_ledger, with_look, with_trials, write_ledger

DATA = Data("data", frozenset({"bybit:BTCUSDT 2026-01-05 aa", "bybit:ETHUSDT 2026-01-05 bb"}))
SUBSET = Data("subset", frozenset({"bybit:BTCUSDT 2026-01-05 aa"}))
GROWN = Data("grown", frozenset({"bybit:BTCUSDT 2026-01-05 ac"}))


def test_a_repeated_trial_adds_nothing() -> None:
    ledger = with_trials(with_trials(Ledger(), DATA, {"a", "b"}), DATA, {"b", "c"})
    assert ledger.trials == {"data": ["a", "b", "c"]}


def test_a_repeated_look_keeps_its_number_and_its_trials() -> None:
    ledger, first, known = with_look(with_trials(Ledger(), DATA, {"a"}), DATA, (0, 9), "one")
    ledger, second, _ = with_look(with_trials(ledger, DATA, {"b"}), DATA, (0, 9), "two")
    ledger, again, still = with_look(with_trials(ledger, DATA, {"c"}), DATA, (0, 9), "one")
    assert (first, second, again) == (1, 2, 1)
    assert (known, still) == (1, 1)


def test_another_interval_or_other_data_is_another_hold_out() -> None:
    ledger, _, _ = with_look(Ledger(), DATA, (0, 9), "one")
    assert with_look(ledger, DATA, (10, 19), "two")[1] == 1
    assert with_look(ledger, Data("other"), (0, 9), "two")[1] == 1


def test_looks_at_overlapping_time_on_shared_symbol_days_count_together() -> None:
    ledger, first, _ = with_look(with_trials(Ledger(), DATA, {"a", "b"}), DATA, (0, 9), "one")
    ledger, shifted, _ = with_look(ledger, DATA, (5, 12), "one")
    ledger, subset, known = with_look(with_trials(ledger, SUBSET, {"c"}), SUBSET, (2, 9), "one")
    assert (first, shifted, subset, known) == (1, 2, 3, 3)
    assert with_look(ledger, DATA, (0, 9), "one")[1] == 1
    assert with_look(ledger, SUBSET, (2, 9), "one")[1] == 3
    assert with_look(ledger, SUBSET, (10, 11), "one")[1] == 2  # the shifted one alone reaches there
    assert with_look(ledger, GROWN, (2, 9), "one")[1] == 1
    assert n_trials(ledger, GROWN) == 0


def test_a_ledger_from_before_looks_were_shared_still_counts(tmp_path: Path) -> None:
    key = hash_of("data", (0, 9))
    looks = [{"configuration": name, "trials": 1} for name in ("one", "two")]
    (tmp_path / "ledger.json").write_bytes(msgspec.json.encode({"trials": {"data": ["a"]}, "looks": {key: looks}}))
    ledger = read_ledger(tmp_path)
    assert with_look(ledger, DATA, (0, 9), "two")[1:] == (2, 1)
    assert with_look(ledger, DATA, (0, 9), "three")[1:] == (3, 1)


def test_the_file_keeps_it_and_damage_is_named(tmp_path: Path) -> None:
    assert read_ledger(tmp_path) == Ledger()
    ledger = with_look(with_trials(Ledger(), DATA, {"a"}), DATA, (0, 9), "one")[0]
    write_ledger(tmp_path, ledger)
    assert read_ledger(tmp_path) == ledger
    (tmp_path / "ledger.json").write_text("{")
    with pytest.raises(StageError, match="damaged"):
        read_ledger(tmp_path)
