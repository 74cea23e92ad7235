"""The settings that labels were built with, as a hash that each `labels` partition carries beside its inputs.

Written by `labels` and compared by `train`: nets under other fees or latencies look like any others.
"""

from typing import Final

from core import store
from core.config import Config
from core.errors import StageError
from core.store import Partition, hash_of

_MARK: Final = "-"


def settings_hash(cfg: Config, venue: str) -> str:
    """A hash of all that decides a venue's labels besides the events."""
    return hash_of(cfg.labels, cfg.fees.get(venue), cfg.decision, cfg.bars)


def inputs_of(cfg: Config, venue: str, events: str) -> str:
    """What a `labels` partition says it was built from: a hash of the events, and that of the settings."""
    return events + _MARK + settings_hash(cfg, venue)


def require_settings(cfg: Config, part: Partition) -> None:
    """Raises StageError where a partition of `labels` was built with other settings than these."""
    built = store.built_from(cfg.root, part)
    if store.files(cfg.root, part) and built.rpartition(_MARK)[2] != settings_hash(cfg, part.exchange):
        raise StageError(
            f"labels of {part.instrument} on {part.date} were built with other settings "
            f"(labels.*, fees.{part.exchange}, decision or bars): run `labels` with the same settings"
        )
