"""Values of archived steps for `db.steps.blocks`: of each file only the columns and row groups that are needed.

The footers of files and the row groups read last are kept. Whether a file is still there, and the same, is looked at
when it is read for the first time in `CHECK_SECONDS`: one request, or one look at the folder.
"""

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import pyarrow.parquet as pq
from sqlalchemy.orm import Session

from db.steps.archived import parquet, places
from db.steps.archived.files import ArchivedFile
from db.steps.step_block import MetricColumn, StepBlock, joined

CHECK_SECONDS = 30.0
MAX_FOOTERS = 256
MAX_GROUPS = 4
"""Row groups that stay in memory, of 16 MB at most."""


class UnreadableArchive(RuntimeError):
    """Archived steps are needed, and their file cannot be read; the message is one sentence."""


class FileGone(UnreadableArchive):
    """The place can be read, and the file is not there: lost, or removed since the session's snapshot."""

    def __init__(self, what: str, why: object) -> None:
        super().__init__(f"{what}: {why}")
        self.what = what
        """The first half of the sentence."""


class Wanted(NamedTuple):
    """A block whose values are in a file."""

    file: int
    """`ArchivedFile.id`"""
    first: int
    last: int
    """The block's last step."""


def read_blocks(
    session: Session, *, segment: int, wanted: Sequence[Wanted], metrics: Sequence[str]
) -> dict[int, Mapping[str, MetricColumn]]:
    """First step of a block -> these metrics over its steps; blocks are given in their order.

    Raises UnreadableArchive; FileGone where the file may have been removed since the session's snapshot.
    """
    found: dict[int, Mapping[str, MetricColumn]] = {}
    for file_id, some in groupby(wanted, key=lambda one: one.file):
        blocks = list(some)
        file = session.get(ArchivedFile, file_id)
        if file is None:
            where = f"archived steps {blocks[0].first:,} to {blocks[-1].last:,} of segment {segment} cannot be read"
            raise UnreadableArchive(f"{where}: the store has lost their file; restore the store from a backup")
        steps = read_file(file, first=blocks[0].first, end=blocks[-1].last + 1, metrics=metrics)
        found.update((block.first, steps.between(block.first, block.last + 1).metrics) for block in blocks)
    return found


def read_file(file: ArchivedFile, *, first: int, end: int, metrics: Sequence[str]) -> StepBlock:
    """The steps [first, end) of a file. Raises UnreadableArchive."""
    what = f"the archived {file.described} cannot be read"
    try:
        content = _content(file)
        groups = parquet.groups_of(_footer(content), first=first, end=end)
        parts = [_group(content, group, tuple(metrics)).between(first, end) for group in groups]
    except places.FileMissing as error:
        raise FileGone(what, error) from error
    except places.PlaceError as error:
        raise UnreadableArchive(f"{what}: {error}") from error
    except parquet.DamagedFile as error:
        raise UnreadableArchive(
            f"{what}: {file.place}/{file.name} is damaged: {error}; restore that file from a backup of the place"
        ) from error
    return joined(parts, metrics)


class _Content(NamedTuple):
    """A file as it was when it was looked at."""

    place: str
    name: str
    version: places.FileVersion

    def open(self) -> places.RemoteFile:
        return places.RemoteFile(places.opened(self.place), self.name, self.version.num_bytes)


def _content(file: ArchivedFile) -> _Content:
    """Raises PlaceError, DamagedFile."""
    version = _version(file.place, file.name, int(time.monotonic() // CHECK_SECONDS))
    if version.num_bytes != file.num_bytes:
        raise parquet.DamagedFile(f"it has {version.num_bytes:,} bytes instead of {file.num_bytes:,}")
    return _Content(file.place, file.name, version)


@lru_cache(maxsize=MAX_FOOTERS)
def _version(place: str, name: str, period: int) -> places.FileVersion:
    """Return the version as of the first call in the period."""
    return places.opened(place).look_at(name)


@lru_cache(maxsize=MAX_FOOTERS)
def _footer(content: _Content) -> pq.FileMetaData:
    return parquet.metadata_of(content.open())


@lru_cache(maxsize=MAX_GROUPS)
def _group(content: _Content, group: int, metrics: tuple[str, ...]) -> StepBlock:
    """A row group: who reads a run from its first step to its last asks for each several times."""
    return parquet.decode(content.open(), metadata=_footer(content), groups=[group], metrics=metrics)
