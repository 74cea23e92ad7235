"""Text to tree and back, trees as data, and errors that point at the place."""

import gc
import math

import pytest
from hypothesis import given, settings

from research.programs.expression import MAX_DEPTH, Node, node, parse, parts, rebuild, show
from research.programs.pointing import tokenise
from tests.research.feature_programs import EXPRESSIONS


@given(EXPRESSIONS)
@settings(deadline=None)
def test_what_is_printed_parses_to_the_same_object(tree: Node) -> None:
    assert parse(show(tree)) is tree


@given(EXPRESSIONS)
@settings(deadline=None)
def test_a_rebuild_that_changes_nothing_gives_the_same_object(tree: Node) -> None:
    assert rebuild(tree, lambda part: part) is tree


def test_equal_expressions_are_one_object_and_others_are_not() -> None:
    assert parse("(add a (mean_5 b))") is parse("( add a\n(mean_5 b))")
    assert parse("(mean_5 a)") is not parse("(mean_6 a)")
    assert parse("1") is parse("1.0") is node(1.0)
    assert parse("0.0") is not parse("-0.0")


def test_a_tree_is_data() -> None:
    tree = parse("(if_gt spread_bps (mean_5s spread_bps) 1 0.0)")
    assert (tree.head, tree.window, len(tree.args)) == ("if_gt", "", 4)
    assert (tree.args[1].head, tree.args[1].window, tree.args[1].operator.form) == ("mean", "5s", "(mean_w x)")
    assert str(tree) == "(if_gt spread_bps (mean_5s spread_bps) 1.0 0.0)"
    assert [show(part) for part in parts(tree)][:2] == ["spread_bps", "(mean_5s spread_bps)"]
    with pytest.raises(AttributeError):
        tree.head = "add"  # type: ignore[misc]


def test_a_rebuild_puts_one_part_in_place_of_another() -> None:
    tree = parse("(sub a (mean_20 (add a b)))")
    other = rebuild(tree, lambda part: parse("(log a)") if part is node("a") else part)
    assert show(other) == "(sub (log a) (mean_20 (add (log a) b)))"


def test_trees_that_nobody_holds_are_forgotten() -> None:
    node("held_by_nobody")
    gc.collect()
    assert not [item for item in gc.get_objects() if isinstance(item, Node) and item.head == "held_by_nobody"]


def test_tokens_know_where_they_begin() -> None:
    assert [(token.text, token.at) for token in tokenise("(lag_3\n a)")] == [("(", 0), ("lag_3", 1), ("a", 8), (")", 9)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing here"),
        ("  ", "nothing here"),
        ("(sub a", "this bracket is never closed\n  (sub a\n  ^"),
        ("(add a (sub a b)", "this bracket is never closed\n  (add a (sub a b)\n  ^"),
        ("a)", "one expression was complete before this\n  a)\n   ^"),
        (")", "this closes nothing\n  )\n  ^"),
        ("()", "an operator must follow the bracket, as in (sub a b)\n  ()\n  ^"),
        ("((sub a b) c)", "an operator must follow the bracket, as in (sub a b)\n  ((sub a b) c)\n  ^"),
        ("(add a)", "(add a b) takes 2 operands, was given 1\n  (add a)\n   ^"),
        ("(abs a b)", "(abs x) takes 1 operand, was given 2\n  (abs a b)\n   ^"),
        ("(add a (men_20 b))", "unknown operator men_20, did you mean mean?\n  (add a (men_20 b))\n          ^"),
        ("(imbalance)", "unknown operator imbalance\n  (imbalance)\n   ^"),
        ("(add_3 a b)", "(add a b) takes no window, was given 3\n  (add_3 a b)\n   ^"),
        ("(mean a)", "(mean_w x) needs a window of bars or time, as in mean_20 or mean_5s\n  (mean a)\n   ^"),
        ("(mean_0 a)", "(mean_w x) takes a window of bars or time above 0, as in mean_20 or mean_5s, was given 0"),
        ("(lag_0s a)", "above 0, as in lag_20 or lag_5s, was given 0s"),
        ("(lag_-3 a)", "above 0, as in lag_20 or lag_5s, was given -3"),
        ("(lag_1.5 a)", "takes a window of bars or time above 0"),
        ("(lag_5sec a)", "takes a window of bars or time above 0"),
        ("(vpin_0 a a a)", "takes a number above 0, as in vpin_50, was given 0"),
        ("(vpin a a a)", "needs a number, as in vpin_50"),
        ("1e999", "1e999 is beyond a float64\n  1e999\n  ^"),
        ("(add a 3x)", "3x is neither a number nor a name\n  (add a 3x)\n         ^"),
        ("(add a $)", "$ is neither a number nor a name"),
        ("nan)", "one expression was complete before this"),
        ("(add a\n     (oops b))", "unknown operator oops\n       (oops b))\n        ^"),
        ("(neg " * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} brackets"),
    ],
)
def test_errors_point_at_the_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("head", "args", "window"),
    [
        (math.nan, (), ""),
        (math.inf, (), ""),
        (1.0, (node("a"),), ""),
        ("3a", (), ""),
        ("a", (), "5"),
        ("men", (node("a"),), ""),
        ("add", (node("a"),), ""),
        ("mean", (node("a"),), ""),
        ("mean", (node("a"),), "0"),
        ("neg", (node("a"),), "5"),
    ],
)
def test_parts_that_make_no_expression_are_refused(head: str | float, args: tuple[Node, ...], window: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        node(head, args, window)
