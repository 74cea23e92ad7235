"""Features whose numbers were fitted: `<data>/fitted/<clock>.toml`, written by stage `fit`, read by all that follow.

A fitted number is part of its feature's text, so the manifest, the live runner and the batch need nothing else. The
file says up to when it has looked (`until_ns`). Decisions up to then are left out of the features, and so of all
training, validation and testing: whatever is learnt or judged comes after.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from core.config import Config
from core.errors import ConfigError, StageError
from core.store import write_atomic
from core.units import NS_PER_S
from research.catalogue import FITTED, choose
from research.event_times import event_texts
from research.signal_table import require_delivered


class Fitted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was fitted on bars that closed at or before `until_ns`: name and text, as in `features.mine`."""

    until_ns: int
    features: dict[str, str]


def fitted_path(root: Path, bar: str) -> Path:
    return root / "fitted" / f"{bar}.toml"


def instant_text(ns: int) -> str:
    """A time as settings are written: 2026-11-21T09:00:00Z."""
    return f"{datetime.fromtimestamp(ns // NS_PER_S, UTC):%Y-%m-%dT%H:%M:%SZ}"


def write_fitted(root: Path, bar: str, fitted: Fitted) -> None:
    """Raises msgspec.DecodeError, with the file as it was, for what nobody could read."""
    lines = [f"{name} = {json.dumps(text, ensure_ascii=False)}" for name, text in fitted.features.items()]
    head = (
        "# Written by `python run_pipeline.py fit`.\n"
        f"# Fitted on bars up to {instant_text(fitted.until_ns)}: decisions up to then are left out of the features.\n"
    )
    body = "\n".join([f"until_ns = {fitted.until_ns}", "", "[features]", *lines, ""])
    content = (head + body).encode()
    msgspec.toml.decode(content, type=Fitted)
    write_atomic(fitted_path(root, bar), content)


def read_fitted(root: Path, bar: str) -> Fitted | None:
    """None where nothing was fitted on this clock. Raises StageError for a file that is not as it was written."""
    path = fitted_path(root, bar)
    if not path.exists():
        return None
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Fitted)
    except msgspec.DecodeError as error:
        raise StageError(f"{path}: {error}: run `python run_pipeline.py fit`, which replaces it") from error


def discard_damaged(root: Path, bar: str) -> bool:
    """Remove the file of a clock if it cannot be read: `fit` makes another, and until then nothing is fitted."""
    try:
        read_fitted(root, bar)
    except StageError:
        fitted_path(root, bar).unlink()
        return True
    return False


def require_fitted(cfg: Config) -> Fitted:
    """What the set `fitted` stands for in a run; nothing, of no time, where the run does not name it.

    Raises StageError where it is named and nothing was fitted.
    """
    if FITTED not in cfg.features.sets:
        return Fitted(0, {})
    fitted = read_fitted(cfg.root, cfg.bars)
    if fitted is None:
        raise StageError(
            f"features.sets names `{FITTED}`, and nothing was fitted on {cfg.bars} in {cfg.root}: "
            "run `python run_pipeline.py fit` first"
        )
    return fitted


def chosen_features(cfg: Config) -> dict[str, str]:
    """Name and text of all features of a run, as `catalogue.choose` gives them, with events and what was fitted.

    Raises ConfigError as `choose`, StageError as `require_fitted`.
    """
    return _chosen(cfg, require_fitted(cfg).features)


def features_so_far(cfg: Config) -> dict[str, str]:
    """The same with what is fitted by now, be it nothing: what bars are built for, before there are any to fit on."""
    found = read_fitted(cfg.root, cfg.bars) if FITTED in cfg.features.sets else None
    if not found and not cfg.features.mine and not cfg.features.events and set(cfg.features.sets) == {FITTED}:
        return {}
    return _chosen(cfg, found.features if found else {})


def _chosen(cfg: Config, fitted: dict[str, str]) -> dict[str, str]:
    sets = [name for name in cfg.features.sets if name != FITTED]
    given = fitted | event_texts(cfg.features.events)
    for name in cfg.features.mine:
        if name in given:
            whose = "what `fit` found" if name in fitted else "features.events"
            raise ConfigError(f"features.mine: {name!r} is a feature of {whose} - at `$.features.mine.{name}`")
    chosen = choose(sets, given | cfg.features.mine, cfg.bars)
    require_delivered(chosen, cfg.poll, cfg.features.mine)
    return chosen
