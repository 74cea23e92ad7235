"""From text to program: names, definitions, windows on a clock, sharing, errors."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from research.language import compile_features, expand
from research.machine.interpreter import SCRATCH
from research.programs.expression import Node, parse, show
from research.programs.panel_program import compile_panel
from research.programs.windows import window_bars


def test_the_example_of_the_documentation() -> None:
    features = {"ofi_z": "(zscore_300 ofi)", "wide": "(if_gt spread_bps (mean_5s spread_bps) 1.0 0.0)"}
    program = compile_features(features, columns=["ofi", "spread_bps"], bar="200ms")
    x = np.random.default_rng(7).normal(size=(1000, 2))
    y = program.evaluate(x)
    live = program.start()
    np.testing.assert_array_equal([live.step(row) for row in x], y)
    mean = np.convolve(x[:, 1], np.full(25, 1 / 25), "valid")
    np.testing.assert_array_equal(y[24:, 1], x[24:, 1] > mean)
    window = x[600:900, 0]
    assert y[899, 0] == pytest.approx((window[-1] - window.mean()) / window.std(), rel=1e-12)
    assert (program.names, program.nodes, program.warmup_bars) == (("ofi_z", "wide"), 3, 299)


def test_common_parts_are_computed_once() -> None:
    program = compile_features(
        {"f": "(add (mean_5 a) (mean_5 a))", "g": "(neg (mean_5 a))", "h": "(mean_1s a)"}, ["a"], "200ms"
    )
    assert program.nodes == 3
    assert program.expressions[2] == "(mean_1s a)"


def test_registers_are_handed_on_after_the_last_use() -> None:
    deep = "(add a " * 50 + "a" + ")" * 50
    assert compile_features({"f": deep}, ["a"]).registers <= SCRATCH + 3


@pytest.mark.parametrize(
    ("window", "bar", "bars"),
    [("20", "200ms", 20), ("20", "volume_10", 20), ("20", "", 20), ("5s", "200ms", 25), ("5s", "time_200ms", 25),
     ("1m", "time_1s", 60), ("1h", "1m", 60), ("1s", "1s", 1)],
)  # fmt: skip
def test_windows_count_bars_or_time(window: str, bar: str, bars: int) -> None:
    assert window_bars(window, bar) == bars


@pytest.mark.parametrize(
    ("text", "bar", "message"),
    [
        ("(mean_5s a)", "volume_10", "needs bars of time, these are volume_10: count bars instead"),
        ("(mean_5s a)", "", "needs bars of time, no clock was given: count bars instead"),
        ("(mean_300ms a)", "200ms", "300ms is not a whole number of bars of 200ms"),
        ("(mean_100ms a)", "time_200ms", "100ms is not a whole number of bars of 200ms"),
        ("(mean_99999999 a)", "200ms", "a window holds 1 to 10000000 bars, was 99999999: choose a shorter one"),
        ("(mean_99d a)", "200ms", "a window holds 1 to 10000000 bars, 99d is 42768000: choose a shorter one"),
        ("(hurst_5s a)", "200ms", "needs at least 64 bars, 5s is 25"),
    ],
)
def test_windows_that_do_not_fit_the_clock_are_pointed_at(text: str, bar: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        compile_features({"f": f"(neg {text})"}, ["a"], bar)
    assert str(caught.value).startswith("feature f: ")
    assert str(caught.value).endswith(f"\n  (neg {text})\n        ^")


def test_unknown_names_are_pointed_at_with_a_hint() -> None:
    with pytest.raises(ValueError, match="unknown name") as caught:
        compile_features({"mine": "(sub imbalance (mean_5 imbalanc))"}, ["imbalance", "ofi"])
    assert str(caught.value) == (
        "feature mine: unknown name imbalanc, did you mean imbalance?\n"
        "  (sub imbalance (mean_5 imbalanc))\n"
        "                         ^"
    )


@pytest.mark.parametrize(("text", "definition"), [(3, "a"), ("x", 3)])
def test_what_is_no_text_is_refused(text: object, definition: object) -> None:
    with pytest.raises(ValueError, match=r"feature f: .*an expression is text or a Node, was 3"):
        compile_features({"f": text}, ["a"], "", {"x": definition})  # type: ignore[dict-item]


def test_definitions_stand_for_their_expressions() -> None:
    definitions = {"mid": "(mul 0.5 (add bid ask))", "move": "(delta_1 mid)", "a": "(neg bid)"}
    tree = expand("(sub move a)", ["bid", "ask", "a"], definitions)
    assert show(tree) == "(sub (delta_1 (mul 0.5 (add bid ask))) a)"  # a column comes before a definition
    program = compile_features({"f": "(sub move a)"}, ["bid", "ask", "a"], "", definitions)
    assert program.expressions == (show(tree),)
    assert parse(program.expressions[0]) is tree


@pytest.mark.parametrize(
    ("definitions", "message"),
    [
        ({"x": "(neg x)"}, "in the definition of x: x is defined by itself\n  (neg x)\n       ^"),
        ({"x": "(neg y)", "y": "(abs x)"}, "in the definition of y: x is defined by itself\n  (abs x)\n       ^"),
        ({"x": "(neg z)"}, "in the definition of x: unknown name z\n  (neg z)\n       ^"),
        ({"x": "(mean z)"}, "in the definition of x: (mean_w x) needs a window"),
    ],
)
def test_errors_in_definitions_point_into_them(definitions: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match="feature f: ") as caught:
        compile_features({"f": "(add x 1)"}, ["a"], "", definitions)
    assert message in str(caught.value)


def test_an_error_does_not_spoil_what_is_compiled_next() -> None:
    definitions = {"bad": "(neg nothing)", "good": "(neg a)"}
    with pytest.raises(ValueError, match="nothing"):
        compile_features({"f": "bad"}, ["a"], "", definitions)
    assert compile_features({"f": "good"}, ["a"], "", definitions).expressions == ("(neg a)",)


@pytest.mark.parametrize(
    ("text", "definition", "pointed_at"),
    [
        ("(add slow 1)", "(neg (mean_3ms a))", "(neg (mean_3ms a))\n        ^"),
        ("(add (mean_30s a) slow)", "(mean_3ms a)", "(mean_3ms a)\n   ^"),  # mean_3 is a part of mean_30s
        ("(add (neg a) slow)", parse("(mean_3ms (neg a))"), "(mean_3ms (neg a))\n   ^"),
    ],
)
def test_a_window_of_a_definition_is_pointed_at_in_the_definition(
    text: str, definition: str | Node, pointed_at: str
) -> None:
    with pytest.raises(ValueError, match="feature f: in the definition of slow: a window of 3ms is not") as caught:
        compile_features({"f": text}, ["a"], "200ms", {"slow": definition})
    assert str(caught.value).endswith(f"\n  {pointed_at}")


def test_the_same_word_is_pointed_at_where_it_stands_on_bars_that_do_not_have_its_window() -> None:
    text = "(add (mean_5s a) (at_volume_10 (mean_5s a)))"
    with pytest.raises(ValueError, match="these are volume_10") as caught:
        expand(text, ["a"], {}, "200ms")
    assert str(caught.value).splitlines()[-1].index("^") == 2 + text.rindex("mean_5s")


def test_a_long_line_is_cut_around_the_place() -> None:
    text = "(add a " * 100 + "(mean_3ms a)" + ")" * 100
    with pytest.raises(ValueError, match="not a whole number") as caught:
        compile_features({"f": text}, ["a"], "200ms")
    line, caret = str(caught.value).splitlines()[1:]
    assert len(line) < 180
    assert line.startswith("  … ")
    assert line[caret.index("^") :].startswith("mean_3ms a)")


@pytest.mark.parametrize(
    ("features", "columns", "message"),
    [
        ({}, ["a"], "needs features by name"),
        (["a"], ["a"], "needs features by name"),
        ("a", ["a"], "needs features by name"),
        ({3: "a"}, ["a"], "name is text, was 3"),
        ({"": "a"}, ["a"], "name is text, was ''"),
        ({"f": "a"}, ["a", "b", "a"], "distinct columns, had a more than once"),
        ({"f": "a"}, "ab", "columns are a list of names, was the text 'ab'"),
        ({"f": "a"}, ["a", "b c"], "was 'b c', which no expression can name: rename or drop it"),
        ({"f": "a"}, ["a", "5"], "was '5', which"),
        ({"f": "a"}, ["a", "π"], "was 'π', which"),
        ({"f": "a"}, ["a", 3], "was 3, which"),
    ],
)
def test_features_and_columns_that_cannot_be_meant_are_refused(features: Any, columns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_features(features, columns)


def test_what_definitions_share_is_compiled_once_however_deep_they_nest() -> None:
    levels = 90
    definitions = {f"d{k}": f"(mul 0.5 (add d{k - 1} (lag_1 d{k - 1})))" for k in range(1, levels + 1)} | {"d0": "a"}
    program = compile_features({"f": f"d{levels}"}, ["a"], "", definitions)
    assert (program.nodes, program.warmup_bars) == (3 * levels, levels)
    assert compile_panel({"f": f"d{levels}"}, ["a"], "time_1s", definitions).warmup_bars == levels
    stream, other, x = program.start(), program.start(), np.arange(100.0)[:, None]
    y = stream.run(x[:95])
    other.restore(stream.save())
    assert y[94, 0] == 94.0 - levels / 2
    assert other.step(x[95])[0] == 95.0 - levels / 2


def test_definitions_that_nest_too_deep_are_refused() -> None:
    definitions = {f"d{k}": f"(neg d{k - 1})" for k in range(1, 300)} | {"d0": "a"}
    with pytest.raises(ValueError, match="more than 100 definitions within each other"):
        compile_features({"f": "d299"}, ["a"], "", definitions)


def test_definitions_may_hang_on_the_clock() -> None:
    def on(bar: str) -> dict[str, str]:
        return {"slow": "(mean_5s a)" if bar.startswith("time") else "(mean_25 a)"}

    tree = expand("(sub slow (at_volume_10 slow))", ["a"], on, "time_1s")
    assert show(tree) == "(sub (mean_5s a) (at_volume_10 (mean_25 a)))"


def test_numbers_columns_and_features_given_twice_are_features_too() -> None:
    program = compile_features({"one": "1", "a": "a", "again": "a", "tree": parse("(neg a)")}, ["a"])
    np.testing.assert_array_equal(program.evaluate(np.array([[2.0], [3.0]])), [[1, 2, 2, -2], [1, 3, 3, -3]])


@pytest.mark.parametrize("bar", ["abc", "volume", "tick_0", "time_7x", "5"])
def test_a_clock_that_is_none_is_refused_at_once(bar: str) -> None:
    with pytest.raises(ValueError, match=f"was .{bar}.|^.{bar}.: "):
        compile_features({"f": "(neg a)"}, ["a"], bar)


def test_rows_that_are_not_in_memory_are_asked_for() -> None:
    lazy: Any = pl.LazyFrame({"a": [1.0]})
    with pytest.raises(ValueError, match=r"in memory: give evaluate\(frame\.collect\(\)\)"):
        compile_features({"f": "(neg a)"}, ["a"]).evaluate(lazy)


def test_a_program_is_told_in_a_line() -> None:
    program = compile_features({f"f{k}": f"(mean_{k + 2} a)" for k in range(5)}, ["a", "b"], "200ms")
    assert (
        repr(program) == "<Program f0, f1, f2, … 2 more: of 5 operators over 1 of 2 columns on 200ms, warm-up 5 bars>"
    )
