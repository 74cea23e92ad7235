"""The operators, joins and features as entries: what is said of each, and which of them some words find."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from core.config import Config
from research.catalogue import FEATURE_SETS, JOINED_SETS, REFERENCE_BAR, choose, compile_texts
from research.familiar_names import MEANT, RECIPES
from research.fitting.fitted import chosen_features
from research.language_docs import join_rows
from research.programs.operators import OPERATORS, Operator
from research.programs.panel_program import PanelProgram

OPERATOR, JOIN, YOURS, RECIPE = "operator", "join", "yours", "recipe"
_SIGNS: Final = {"λ": "lambda", "σ": "sigma", "μ": "mu", "δ": "delta", "ρ": "rho", "β": "beta", "-": " ", "_": " "}


@dataclass(frozen=True)
class Entry:
    """`group` is OPERATOR, JOIN, RECIPE, YOURS or a feature's set; `form` how an operator is called, or the name again.

    `text` is a feature's expression over the columns, on the clock `bars`, `written` the same as one writes it; `rule`
    is an operator's warm-up.
    """

    group: str
    name: str
    form: str
    text: str
    written: str
    unit: str
    says: str
    source: str
    rule: str = ""
    bars: str = ""

    @cached_property
    def program(self) -> PanelProgram | None:
        """The program of a feature; None for what computes nothing by itself."""
        return compile_texts({self.name: self.text}, self.bars) if self.text else None

    @property
    def warmup(self) -> str:
        """In bars, or an operator's rule."""
        if self.program is None:
            return self.rule
        return "–" if self.program.warmup_bars is None else f"{self.program.warmup_bars:,}"

    @cached_property
    def told(self) -> str:
        """All that is said of it, plainly."""
        return plain(" ".join((self.group, self.form, self.written, self.unit, self.says, self.source)))

    def has(self, words: Iterable[str]) -> bool:
        """Whether each of some words is how one begins that is said of it."""
        return all(re.search(rf"\b{word}", self.told) for word in words)

    def is_meant(self, phrase: str) -> bool:
        """Whether it says a phrase of `MEANT`, or is what that stands for, or a feature named after that."""
        is_named = any(self.name == name or self.name.startswith(f"{name}_") for name in MEANT[phrase])
        return is_named or re.search(rf"\b{phrase}\b", self.told) is not None

    def row(self, cost_ns: float | None) -> dict[str, Any]:
        """As report.json has it."""
        told = {
            "group": self.group,
            "name": self.name,
            "form": self.form,
            "unit": self.unit,
            "warmup_bars": self.warmup,
            "ns": cost_ns,
        }
        return told | {"says": self.says, "source": self.source, "expression": self.written or None}


def plain(text: str) -> str:
    """Lower case, with Greek letters by name: what words are looked for in, and how they are asked for."""
    return "".join(_SIGNS.get(sign, sign) for sign in text.lower())


def words_of(asked: str) -> list[str]:
    """The words of a question: `Kyle's λ` is `kyle` and `lambda`."""
    return [word for word in re.findall(r"\w+", plain(asked)) if len(word) > 1]


def finding(asked: str, entries: Iterable[Entry]) -> list[Entry]:
    """The entries that a question is about: all of its words begin one that is said of them, and what it calls by
    another name (`MEANT`) they are."""
    rest, meant = " ".join(words_of(asked)), []
    for phrase in sorted(MEANT, key=len, reverse=True):
        rest, count = re.subn(rf"\b{phrase}\b", " ", rest)
        meant += [phrase] if count else []
    words = rest.split()
    return [entry for entry in entries if entry.has(words) and all(map(entry.is_meant, meant))]


def operator_entries() -> Iterator[Entry]:
    """An entry for each operator, then for each form of a join."""
    for each in OPERATORS.values():
        says = "; ".join(part for part in (each.doc, f"NaN {each.nan}" if each.nan else "") if part)
        yield Entry(OPERATOR, each.name, each.form, "", "", each.units, says, each.source, _warmup(each))
    for form, says in join_rows():
        yield Entry(JOIN, form, form, "", "", "", says.replace("`", ""), "")


def recipe_entries(bars: str) -> Iterator[Entry]:
    """An entry for each indicator that is no operator but a line to write."""
    texts = choose((), {name: text for name, (text, _, _) in RECIPES.items()}, bars)
    for name, (written, unit, says) in RECIPES.items():
        yield Entry(RECIPE, name, name, texts[name], written, unit, says, "", bars=bars)


def feature_entries(cfg: Config) -> Iterator[Entry]:
    """An entry for each feature of every set on the run's clock, then for your own and what was fitted."""
    chosen = chosen_features(cfg)
    for name, features in (FEATURE_SETS | JOINED_SETS).items():
        texts, default = (choose((name,), {}, bars) for bars in (cfg.bars, REFERENCE_BAR))
        for (form, text), each in zip(texts.items(), features.values(), strict=True):
            chosen.pop(form, None)
            written = each.text if default.get(form) == text else text
            yield Entry(name, form, form, text, written, each.unit, each.says, each.source, bars=cfg.bars)
    for form, text in chosen.items():
        written = cfg.features.mine.get(form, text)
        yield Entry(YOURS, form, form, text, written, "", "", "", bars=cfg.bars)


def _warmup(operator: Operator) -> str:
    return operator.warmup + (" ∞" if operator.infinite else "")
