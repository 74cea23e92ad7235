"""What the event tables of a data directory hold: `<data>/source.json`, written by capture.

Every stage after capture works on what is there, so it takes the source from this mark, and a simulated market cannot
pass for a real one because a later command forgot to say `--source`.
"""

from typing import Literal

import msgspec

from core.config import Config
from core.errors import ConfigError, StageError
from core.store import write_atomic


class Origin(msgspec.Struct, frozen=True):
    """`identity` tells one simulated or replayed market from another; it is empty for live captures."""

    source: Literal["sim", "replay", "archive", "live"]
    identity: str = ""
    complete: bool = False
    simulated: bool = False
    """The events come from the simulator, be it by way of a recording of it."""


def read_origin(config: Config) -> Origin | None:
    """The mark of the data directory, or None where nothing was captured yet."""
    path = config.root / "source.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Origin)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise StageError(f"{path} cannot be read: choose another --data-dir, or mend its permissions") from error
    except msgspec.DecodeError as error:
        raise StageError(f"{path} is damaged ({error}): choose another --data-dir, or capture again into it") from error


def write_origin(config: Config, origin: Origin) -> None:
    write_atomic(config.root / "source.json", msgspec.json.encode(origin))


def settle_source(config: Config, asked: str | None) -> Config:
    """The configuration with the source of what is captured, for stages that do not capture.

    Raises ConfigError if the command line asked for another source than the tables hold.
    """
    origin = read_origin(config)
    if origin is None:
        return config
    if asked not in (None, origin.source):
        raise ConfigError(
            f"--source {asked}: the tables in {config.root} hold {origin.source} data: "
            f"leave --source out, choose another --data-dir, or run `capture` first"
        )
    return msgspec.structs.replace(config, source=origin.source)
