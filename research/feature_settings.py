"""The settings that features were built with, as a hash that each `features` partition carries beside its inputs.

Written by `features` and compared by what learns from the table: under the same name another text gives a column that
looks like any other, and the manifest would tell the runner to compute what no model was trained on.
"""

from collections.abc import Sequence
from typing import Final

from core import store
from core.config import Config
from core.errors import StageError
from core.store import Partition, hash_of
from research.bars.clocks import decision_step_ns, parse_clock
from research.catalogue import compile_texts
from research.fitting.fitted import chosen_features, require_fitted
from research.programs.panel_program import PanelProgram

VERSION: Final = 8
"""Of what an operator means: a change of the kernels raises it, and every partition is built again."""
_MARK: Final = "-"


def settings_hash(cfg: Config, program: PanelProgram) -> str:
    """A hash of all that decides features besides bars and slow series. `program` is of the features chosen."""
    step_ns = decision_step_ns(parse_clock(cfg.bars), cfg.decision)
    slow = (cfg.signals,) if program.signals else ()
    until_ns = require_fitted(cfg).until_ns
    return hash_of(VERSION, step_ns, until_ns, program.bar, program.names, program.expressions, *slow)


def settings_of(cfg: Config) -> str:
    """The hash of the features that a configuration chooses. Raises ConfigError for what is not in the language."""
    return settings_hash(cfg, compile_texts(chosen_features(cfg), cfg.bars))


def inputs_of(settings: str, rows: str) -> str:
    """What a `features` partition says it was built from: a hash of the rows that it read, and that of the settings."""
    return rows + _MARK + settings


def require_settings(cfg: Config, parts: Sequence[Partition]) -> None:
    """Raises StageError where partitions of `features` were built with other settings than these.

    Raises ConfigError for features that are not in the language.
    """
    wanted = settings_of(cfg)
    for part in parts:
        if store.built_from(cfg.root, part).rpartition(_MARK)[2] != wanted:
            raise StageError(
                f"features of {part.instrument} on {part.date} were built with other settings (a text of features.*, "
                "what is fitted, decision or signals.*): run `features` with the same settings"
            )
