"""Shards of a partition as the one process that captures into it handles them: whole, sealed, torn by a power cut."""

import os
import re
from io import BytesIO
from pathlib import Path
from typing import Final

import polars as pl

from core.atomic import put_file
from core.compaction import staging_of
from core.plain_parquet import CHECKSUM_END, has_checksum, is_damaged
from core.store import DIGEST, ENCODING, Partition, digest_of, files

_MAGIC: Final = b"PAR1"
_SHARD: Final = re.compile(r"\d{20}-(\d{6})")


def take_over(root: Path, part: Partition) -> tuple[int, list[Path]]:
    """Make a partition ready for shards of a new process: the number of its first, which none here has, and what was
    set aside. Drafts are removed; a shard that a power cut has torn gets the suffix `.torn`.
    """
    if not (root / part.path).exists():
        return 0, []
    for draft in (root / part.path).glob("*.part"):
        draft.unlink(missing_ok=True)
    numbers = [_SHARD.match(path.name) for path in files(root, part)]
    return max((int(each[1]) for each in numbers if each), default=-1) + 1, set_torn_aside(root, part)


def set_torn_aside(root: Path, part: Partition) -> list[Path]:
    """Give torn shards the suffix `.torn`; where they are now. For who may write to the partition alone."""
    return [path.replace(Path(f"{path}.torn")) for path in files(root, part) if _is_torn(path)]


def torn_text(path: Path) -> str:
    """What the user is told of a shard that was set aside."""
    return f"set aside, as it is not whole (a power cut leaves such files): {path}"


def _is_torn(path: Path) -> bool:
    """Whether a file has no end, or is a growing shard with pages of an earlier moment in it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - CHECKSUM_END))
        end = file.read()
        if end[-len(_MAGIC) :] != _MAGIC:
            return True
        file.seek(0)
        return has_checksum(end) and is_damaged(file.read())


def seal_shard(path: Path, frame: pl.DataFrame, fsync: bool) -> None:
    """Write or replace a shard that nothing will be added to. Raises OSError where the disk refuses.

    It is encoded in memory: a disk that is full by the time of the footer is a mere "transport error" to Polars.
    """
    content = BytesIO()
    frame.write_parquet(content, **ENCODING, metadata={DIGEST: digest_of(frame)})
    put_file(path, lambda draft: draft.write_bytes(content.getbuffer()), fsync)


def spare_of(root: Path, part: Partition, name: str) -> Path:
    """Where the file is kept that takes turns with a growing shard (core/turned_file.py)."""
    return staging_of(root) / f"{part.table} {part.exchange} {part.symbol} {name}"
