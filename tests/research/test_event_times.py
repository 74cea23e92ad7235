"""Scheduled events come from the configuration or from files, under their names; what is no time is told where."""

from pathlib import Path

import pytest

from core.config import load
from core.errors import ConfigError
from research.event_times import event_texts


def test_lists_without_and_with_names_and_files_say_the_same(tmp_path: Path) -> None:
    times = ["2026-12-09T19:00:00Z", "2027-01-27T14:00-05:00"]
    (tmp_path / "fomc.txt").write_text(f"# decisions\n\n{times[0]}  December\n{times[1]},January,2.5%\n")
    plain = event_texts(tuple(times))
    assert list(plain) == ["minutes_to_event", "minutes_since_event"]
    named = event_texts({"fomc": tuple(times), "cpi": ("2026-12-10T13:30:00Z",)})
    assert list(named) == ["minutes_to_fomc", "minutes_since_fomc", "minutes_to_cpi", "minutes_since_cpi"]
    assert event_texts({"event": tuple(times)}) == plain
    assert event_texts({"event": "fomc.txt"}, root=tmp_path) == plain
    assert event_texts({"event": str(tmp_path / "fomc.txt")}) == plain
    (tmp_path / "saved_by_a_spreadsheet.txt").write_text("\n".join(times), encoding="utf-8-sig")
    assert event_texts({"event": "saved_by_a_spreadsheet.txt"}, root=tmp_path) == plain
    assert event_texts(()) == event_texts({}) == event_texts({"none": ()}) == {}


def test_a_zone_is_reckoned_with() -> None:
    utc, new_york = (event_texts((time,)) for time in ("2026-12-09T19:00:00Z", "2026-12-09T14:00:00-05:00"))
    assert utc == new_york


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("# none yet\n", "holds 0 times, 1 to 1000 are wanted"),
        ("2026-12-09T19:00:00Z\n2026-12-10\n", "line 2: 2026-12-10 is no time with its zone such as 2026-11-22T14"),
        ("2026-13-09T19:00:00Z\n", r"line 1: 2026-13-09T19:00:00Z is no time.*month must be in 1\.\.12"),
        ("2026-12-09T19:00:00Z\n" * 1001, "holds 1001 times"),
    ],
)
def test_a_file_that_is_none_of_times_is_told_with_its_place(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "cpi.txt").write_text(content)
    with pytest.raises(ConfigError, match=rf"features\.events\.cpi: .*{message}.*at `\$\.features\.events\.cpi`"):
        event_texts({"cpi": "cpi.txt"}, root=tmp_path)


def test_a_name_that_makes_a_feature_of_the_catalogue_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"minutes_to_funding is a feature.*at `\$\.features\.events\.funding`"):
        event_texts({"funding": ("2026-12-09T19:00:00Z",)})


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ('features.events=["2026-12-09"]', "features.events[0]: a time with its zone such as 2026-11-22T14:00:00Z"),
        ('features.events.fomc=["2026-12-09T14:00"]', "features.events.fomc[0]: a time with its zone such as"),
        ('features.events.fomc=["2026-12-32T14:00Z"]', "features.events.fomc[0]: 2026-12-32T14:00Z is no date"),
        ("features.events.fomc=3", "features.events.fomc: a list of times, or a file's name, was 3"),
        ('features.events.2nd="x"', "features.events: a name in letters of a to z, digits and _, was '2nd'"),
        ('features.events.aä="x"', "features.events: a name in letters of a to z, digits and _, was 'aä'"),
        ("features.events=3", "features.events: a list of times with their zone, or such lists by name, was 3"),
    ],
)
def test_a_wrong_setting_is_told_in_words(pair: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(pairs=[pair], root=tmp_path)
    assert message in str(caught.value)
