"""Errors that point at a place in the text of an expression, and hints at what was meant."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

WIDEST: Final = 160
"""Characters of a line that an error shows: a longer one is cut around the place."""
_HINTS: Final = 2
_TOKEN: Final = re.compile(r"[()]|[^\s()]+")


@dataclass(frozen=True, slots=True)
class Token:
    """A bracket or a word, and where it begins in the text."""

    text: str
    at: int


def tokenise(text: str) -> list[Token]:
    """Brackets and words; white space, line ends included, only parts them."""
    return [Token(match.group(), match.start()) for match in _TOKEN.finditer(text)]


def fail(text: str, at: int, message: str) -> NoReturn:
    """Raise a ValueError that shows the line of `text`, or what is around the place in a long one, with a caret under
    `at`."""
    start = text.rfind("\n", 0, at) + 1
    line = text[start:].split("\n", 1)[0]
    begin = min(max(at - start - WIDEST // 2, 0), max(len(line) - WIDEST, 0))
    before, after = "… " if begin else "", " …" if begin + WIDEST < len(line) else ""
    shown, caret = before + line[begin : begin + WIDEST] + after, " " * (len(before) + at - start - begin)
    raise ValueError(f"{message}\n  {shown}\n  {caret}^")


def fail_at_word(text: str, word: str, message: str) -> NoReturn:
    """`fail` at the first place where `word` stands in `text`."""
    fail(text, next((token.at for token in tokenise(text) if token.text == word), 0), message)


def fail_at_head(text: str, count: int, message: str) -> NoReturn:
    """`fail` at the head of the part that comes after so many others, a call before its operands."""
    words = [token for token in tokenise(text) if token.text not in "()"]
    fail(text, words[count].at, message)


def text_with(word: str, *texts: str) -> str:
    """The first of some texts in which `word` stands, as who wrote it knows it; else the last."""
    return next((text for text in texts if any(token.text == word for token in tokenise(text))), texts[-1])


def nearest(word: str, known: Sequence[str], *less_likely: str) -> str:
    """A hint for an error message: the shortest known words that go on where this one ends, else the less likely ones,
    else the nearest of all, or nothing."""
    longer = [sorted((each for each in some if each.startswith(f"{word}_")), key=len) for some in (known, less_likely)]
    near = (longer[0] or longer[1])[:_HINTS] or difflib.get_close_matches(word, [*known, *less_likely], 1)
    return f", did you mean {' or '.join(near)}?" if near else ""
