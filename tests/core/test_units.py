"""Units."""

import pytest

from core.units import counted, parse_duration_ns, seconds_label


@pytest.mark.parametrize(("text", "ns"), [("200ms", 200_000_000), ("5s", 5_000_000_000), ("1d", 86_400_000_000_000)])
def test_a_duration_is_a_number_and_a_unit(text: str, ns: int) -> None:
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "5", "s", "0s", "1.5s", "-1s", "5 s", "5w"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration is"):
        parse_duration_ns(text)


def test_seconds_are_written_without_trailing_zeros() -> None:
    assert [seconds_label(x) for x in (10.0, 0.5, 900.0)] == ["10", "0.5", "900"]


def test_one_is_singular_and_thousands_have_commas() -> None:
    assert [counted(number, "gap") for number in (0, 1, 2_000)] == ["0 gaps", "1 gap", "2,000 gaps"]
