"""Whose tables a data directory holds, and what a capture may do with them.

A simulated or a replayed market can be made again, so the next one replaces it, and everything that was built from it.
What was captured live, or from archives, is never deleted. The mark is `<data>/source.json` (core/origin.py).
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from core.config import ROOT, Config
from core.errors import ConfigError, StageError
from core.origin import Origin, read_origin
from core.schema import EVENTS, GAPS, TABLES
from core.servers import simulator_fingerprint
from core.store import hash_of, partitions
from ingest.raw import raw_files

CAPTURE_VERSION: Final = 2
"""Raised when decoders or rows change, so that tables made by earlier code are made again."""
_CAPTURED: Final = tuple(table.name for table in (*EVENTS, GAPS))
_DERIVED: Final = (
    *(table.name for table in TABLES if table.name not in _CAPTURED),
    "state",
    "fitted",
    "train",
    "stages",
)
_OF_THE_MARKET: Final = ("truth",)
_CURRENT: Final = "models/current.txt"
_REPEATABLE: Final = ("sim", "replay")


def identity_of(config: Config) -> str:
    """What tells one simulated or replayed market from another; empty for live captures.

    Raises ConfigError or StageError if there is nothing to replay.
    """
    capture = config.capture
    if config.source == "sim":
        sim = msgspec.structs.replace(config.sim, speed=0.0, live_minutes=1.0)  # neither changes the history
        seeded = sim, config.symbols, config.seed, capture.depth, capture.bybit_depth
        return hash_of("sim", CAPTURE_VERSION, simulator_fingerprint(), seeded)
    if config.source == "replay":
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in raw_files(replay_folder(config))]
        return hash_of("replay", CAPTURE_VERSION, config.symbols, files)
    return ""


def replay_folder(config: Config) -> Path:
    """The folder of raw captures. Raises ConfigError if none is set, StageError if reading it means writing to it."""
    if not config.replay.path:
        raise ConfigError("replay.path: --source replay needs --set replay.path=DIR - at `$.replay.path`")
    folder = ROOT / config.replay.path
    if config.capture.keep_raw and folder.resolve() == raw_folder(config).resolve():
        raise StageError(f"capture.keep_raw would write into {folder}, which is replayed: choose another --data-dir")
    return folder


def raw_folder(config: Config) -> Path:
    return config.root / "raw"


def is_captured(config: Config, origin: Origin) -> bool:
    """True if the tables hold all of this very market, and its raw frames if those are asked for."""
    found = read_origin(config)
    is_same = found is not None and (found.source, found.identity) == (origin.source, origin.identity)
    if found is None or not is_same or not found.complete or origin.source not in _REPEATABLE:
        return False
    has_raw = not config.capture.keep_raw or any(raw_folder(config).glob(f"{raw_prefix(origin)}*"))
    return has_raw and any(partitions(config.root, table) for table in EVENTS)


def raw_prefix(origin: Origin) -> str:
    """How the raw files of a repeatable market begin: capturing it again overwrites them."""
    return f"{origin.source}-{origin.identity[:8]}-"


def raw_path(config: Config, origin: Origin, venue: str, number: int) -> Path:
    """The raw file of a connection. Live captures are told apart by their time, repeatable ones by what they are."""
    stamp = f"live-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-" if origin.source == "live" else raw_prefix(origin)
    return raw_folder(config) / f"{stamp}{number:02d}-{venue}.jsonl.zst"


def make_room(config: Config, origin: Origin) -> str:
    """Prepare the data directory for a capture, by the rules above. Returns what was removed, for the user to read.

    Raises StageError if the tables hold what cannot be made again and is not to be appended to.
    """
    found, root = read_origin(config), config.root
    if found is None:
        if any(partitions(root, table) for table in EVENTS):
            raise StageError(f"{root} holds event tables of unknown source (no source.json): choose another --data-dir")
        return ""
    if found.source not in _REPEATABLE:
        if found.source == origin.source and found.simulated == origin.simulated:
            return ""
        if found.source == origin.source:
            held, offered = ("simulated", "real") if found.simulated else ("real", "simulated")
            raise StageError(
                f"{root} holds {held} rows, {offered} ones must not mix with them: choose another --data-dir"
            )
        raise StageError(
            f"{root} holds {found.source} data, which cannot be made again: "
            f"choose another --data-dir for --source {origin.source}"
        )
    is_same = (found.source, found.identity) == (origin.source, origin.identity)
    names = _CAPTURED if is_same else (*_CAPTURED, *_DERIVED)
    removed = [name for name in (*names, *_OF_THE_MARKET) if _remove(root / name)]
    if is_same:
        return ""
    if (root / _CURRENT).exists():
        (root / _CURRENT).unlink()
        removed.append(f"{_CURRENT}, as the model in use was trained on it (the models stay)")
    if not removed:
        return ""
    return f"removed the {found.source} market that was here ({found.identity[:8]}): {', '.join(removed)}"


def _remove(folder: Path) -> bool:
    """Delete a folder of tables; True if there was one."""
    if not folder.is_dir():
        return False
    shutil.rmtree(folder)
    return True
