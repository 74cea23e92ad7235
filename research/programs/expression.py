"""Expressions of the feature language: text to tree and back.

  expression = number | name | "(" operator expression … ")" | "(" join expression ")"
  operator   = a name of `operators.OPERATORS`, with "_" and a window if it takes one: sub, lag_3, mean_20, zscore_5s
  join       = at_ and a clock, of_ and a symbol, or a cross-section (joins.py): at_1m, of_ETHUSDT, cs_rank
  window     = a count of bars (20) or a time (200ms, 5s, 1m)
  name       = a letter or "_", then letters, digits and "_": a column or a definition

A `Node` is data: immutable, and equal expressions are one object. So a tree can be parsed, printed, searched, rebuilt
and compared by identity, and what features have in common is shared. Errors are ValueErrors that show the text and
point at the place.
"""

import hashlib
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from research.programs.joins import Join, parse_join
from research.programs.operators import OPERATORS, Operator
from research.programs.pointing import WIDEST, Token, fail, nearest, tokenise

MAX_DEPTH: Final = 200
"""Brackets within brackets: below Python's own limit on recursion, above what anybody reads."""

_ROUNDED: Final = 1e-6  # by which shares written with seven digits may be more than 1

_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NAME: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_WINDOW: Final = re.compile(r"[1-9]\d*(ms|s|m|h|d)?", re.ASCII)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Node:
    """A number (`head` a float), a name (`head` a str, no `args`) or a call (`head` an operator or a join).

    Made by `node`. A join's head is its whole word, and it has no window.
    """

    head: str | float
    args: tuple["Node", ...] = ()
    window: str = ""

    @property
    def is_number(self) -> bool:
        return isinstance(self.head, float)

    @property
    def is_call(self) -> bool:
        return bool(self.args)

    @property
    def operator(self) -> Operator:
        """Of a call that is no join. Raises KeyError for anything else."""
        return OPERATORS[str(self.head)]

    @property
    def join(self) -> Join | None:
        """Of a call that is one."""
        return parse_join(str(self.head)) if self.args else None

    def __str__(self) -> str:
        return show(self)


_NODES: WeakValueDictionary[tuple[object, ...], Node] = WeakValueDictionary()
_LOCK: Final = threading.Lock()


def node(head: str | float, args: Iterable[Node] = (), window: str = "") -> Node:
    """The one node with these parts. Raises ValueError for parts that do not make an expression."""
    args = tuple(args)
    if isinstance(head, str):
        _check_parts(head, args, window)
    elif not math.isfinite(head) or args or window:
        raise ValueError(f"a number is finite and stands alone, was {head!r}")
    else:
        head = float(head)
    key = (head.hex() if isinstance(head, float) else head, args, window)
    with _LOCK:
        return _NODES.setdefault(key, Node(head, args, window))


def parse(text: str) -> Node:
    """The tree of an expression. Raises ValueError, pointing at the place, for text that is none."""
    tokens = tokenise(text)
    if not tokens:
        fail(text, 0, "nothing here: an expression is a number, a name or (operator …)")
    tree, rest = _expression(text, tokens, 0, 0)
    if rest < len(tokens):
        fail(text, tokens[rest].at, "one expression was complete before this")
    return tree


def show(tree: Node) -> str:
    """The text of a tree: `parse(show(tree)) is tree`."""
    texts: dict[Node, str] = {}
    for part in parts(tree):
        inside = "".join(f" {texts[arg]}" for arg in part.args)
        texts[part] = f"({written(part)}{inside})" if part.is_call else written(part)
    return texts[tree]


def excerpt(tree: Node) -> str:
    """How the text of a tree begins. It costs what it shows: parts that are shared make the whole text long."""
    shown, length = [], 0
    for piece in _pieces(tree):
        shown.append(piece)
        length += len(piece)
        if length > WIDEST:
            return "".join(shown)[:WIDEST] + " …"
    return "".join(shown)


def digests(trees: Iterable[Node]) -> list[str]:
    """For each tree a word that no other one has, made of its parts' in the time that these take, shared ones once."""
    trees, known = list(trees), dict[Node, bytes]()
    for part in parts(*trees):
        head = f"{written(part)} {len(part.args)} ".encode()
        known[part] = hashlib.blake2b(head + b"".join(known[arg] for arg in part.args), digest_size=16).digest()
    return [known[tree].hex() for tree in trees]


def is_name(word: str) -> bool:
    """Whether an expression can name it: letters, digits and _, no digit first."""
    return _NAME.fullmatch(word) is not None


def written(tree: Node) -> str:
    """The word that stands for a node's head in the text: `mean_20`."""
    if isinstance(tree.head, float):
        return repr(tree.head)
    return f"{tree.head}_{tree.window}" if tree.window else tree.head


def rebuild(tree: Node, change: Callable[[Node], Node], into_joins: bool = True) -> Node:
    """The tree with `change` applied to each node, operands first. Parts that stay the same are the same objects.

    What stands inside a join is left as it is where `into_joins` is False.
    """
    made: dict[Node, Node] = {}
    for part in parts(tree, into_joins=into_joins):
        args = part.args if part.join and not into_joins else tuple(made[arg] for arg in part.args)
        is_same = all(arg is old for arg, old in zip(args, part.args, strict=True))
        made[part] = change(part if is_same else node(part.head, args, part.window))
    return made[tree]


def parts(*trees: Node, into_joins: bool = True) -> Iterator[Node]:
    """The distinct nodes of some trees, operands before what uses them.

    What stands inside a join is left out where `into_joins` is False: to the bars around it, a join is a column.
    """
    seen: set[Node] = set()
    waiting = list(reversed(trees))
    while waiting:
        part = waiting[-1]
        args = part.args if part not in seen and (into_joins or part.join is None) else ()
        first = [arg for arg in reversed(args) if arg not in seen]
        waiting += first
        if not first:
            waiting.pop()
            if part not in seen:
                seen.add(part)
                yield part


def _pieces(tree: Node) -> Iterator[str]:
    """The text of a tree, bit by bit."""
    waiting: list[Node | str] = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif part.is_call:
            yield f"({written(part)}"
            waiting.append(")")
            for arg in reversed(part.args):
                waiting += [arg, " "]
        else:
            yield written(part)


def _expression(text: str, tokens: list[Token], i: int, depth: int) -> tuple[Node, int]:
    """The expression that begins at token `i`, and the token after it."""
    token = tokens[i]
    if token.text == "(":
        return _call(text, tokens, i, depth + 1)
    if token.text == ")":
        fail(text, token.at, "this closes nothing")
    if _NUMBER.fullmatch(token.text):
        if not math.isfinite(float(token.text)):
            fail(text, token.at, f"{token.text} is beyond a float64")
        return node(float(token.text)), i + 1
    if not _NAME.fullmatch(token.text):
        fail(text, token.at, f"{token.text} is neither a number nor a name")
    return node(token.text), i + 1


def _call(text: str, tokens: list[Token], i: int, depth: int) -> tuple[Node, int]:
    if depth > MAX_DEPTH:
        fail(text, tokens[i].at, f"more than {MAX_DEPTH} brackets within each other")
    if i + 1 == len(tokens) or tokens[i + 1].text in "()":
        fail(text, tokens[i].at, "an operator must follow the bracket, as in (sub a b)")
    head, opened = tokens[i + 1], tokens[i]
    make = _join_of(text, head) or _operator_of(text, head)
    args: list[Node] = []
    starts: list[int] = []
    i += 2
    while i < len(tokens) and tokens[i].text != ")":
        starts.append(tokens[i].at)
        arg, i = _expression(text, tokens, i, depth)
        args.append(arg)
    if i == len(tokens):
        fail(text, opened.at, "this bracket is never closed")
    return make(args, starts), i + 1


def _join_of(text: str, head: Token) -> Callable[[list[Node], list[int]], Node] | None:
    """What makes the call of the join that a word at the head names, from its operands and where they begin."""
    try:
        join = parse_join(head.text)
    except ValueError as error:
        fail(text, head.at, str(error))

    def make(args: list[Node], starts: list[int]) -> Node:
        if len(args) != 1:
            fail(text, head.at, f"({head.text} x) takes {_operands(1)}, was given {len(args)}")
        return node(head.text, args)

    return make if join else None


def _operator_of(text: str, head: Token) -> Callable[[list[Node], list[int]], Node]:
    """The same of an operator."""
    operator, window = _operator(text, head)

    def make(args: list[Node], starts: list[int]) -> Node:
        if len(args) != operator.arity:
            fail(text, head.at, f"{operator.form} takes {_operands(operator.arity)}, was given {len(args)}")
        for place in operator.levels:
            if not _is_level(args[place]):
                fail(text, starts[place], f"{operator.form} takes a number from 0 to 1 here")
        for places in operator.shares:
            if not _is_share(args, places):
                fail(text, starts[places[0]], f"{operator.form} takes chances here that together are 1 at most")
        return node(operator.name, args, window)

    return make


def _operator(text: str, head: Token) -> tuple[Operator, str]:
    """The operator and the window that a word at the head of a call names."""
    plain = OPERATORS.get(head.text)
    if plain and not plain.window:
        return plain, ""
    name, _, window = head.text.rpartition("_")
    operator = plain or OPERATORS.get(name)
    if operator is None:
        fail(text, head.at, f"unknown operator {head.text}{nearest(head.text.split('_')[0], list(OPERATORS))}")
    if not operator.window:
        fail(text, head.at, f"{operator.form} takes no window, was given {window}")
    is_count = operator.window == "n"
    kind = "a number" if is_count else "a window of bars or time"
    example = f"as in {operator.name}_50" if is_count else f"as in {operator.name}_20 or {operator.name}_5s"
    if plain:
        fail(text, head.at, f"{operator.form} needs {kind}, {example}")
    if not _WINDOW.fullmatch(window) or (is_count and not window.isdigit()):
        fail(text, head.at, f"{operator.form} takes {kind} above 0, {example}, was given {window}")
    return operator, window


def _check_parts(head: str, args: tuple[Node, ...], window: str) -> None:
    if not args:
        if not _NAME.fullmatch(head) or window:
            raise ValueError(f"a name is letters, digits and _, was {head!r}")
        return
    if parse_join(head) is not None:
        if len(args) != 1 or window:
            raise ValueError(f"({head} x) takes 1 operand and no window, was given {len(args)} and {window!r}")
        return
    operator = OPERATORS.get(head)
    if operator is None:
        raise ValueError(f"unknown operator {head}{nearest(head, list(OPERATORS))}")
    if len(args) != operator.arity:
        raise ValueError(f"{operator.form} takes {_operands(operator.arity)}, was given {len(args)}")
    if not all(_is_level(args[place]) for place in operator.levels):
        raise ValueError(f"{operator.form} takes a number from 0 to 1 as operand {1 + min(operator.levels)}")
    if not all(_is_share(args, places) for places in operator.shares):
        raise ValueError(f"{operator.form} takes chances that together are 1 at most")
    if bool(window) != bool(operator.window) or (window and not _WINDOW.fullmatch(window)):
        raise ValueError(f"{operator.form} {'needs a' if operator.window else 'takes no'} window, was {window!r}")


def _is_level(arg: Node) -> bool:
    return isinstance(arg.head, float) and 0.0 <= arg.head <= 1.0


def _is_share(args: Sequence[Node], places: range) -> bool:
    return sum(float(args[place].head) for place in places) <= 1.0 + _ROUNDED


def _operands(count: int) -> str:
    return "1 operand" if count == 1 else f"{count} operands"
