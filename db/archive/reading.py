"""Values of archived steps for `db.steps.blocks`: of each file only the columns and row groups that are needed.

The footer of a file is read once by a process, for files never change.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from sqlalchemy.orm import Session

from db.archive import parquet, places
from db.archive.files import ArchivedFile
from db.steps.columns import MetricColumn
from db.steps.step_block import StepBlock

MAX_FOOTERS = 256


class UnreadableArchive(RuntimeError):
    """Archived steps are needed, and their file cannot be read; the message is one sentence."""


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

    Raises UnreadableArchive.
    """
    found: dict[int, Mapping[str, MetricColumn]] = {}
    for file_id, some in groupby(wanted, key=lambda one: one.file):
        blocks = list(some)
        file = session.get(ArchivedFile, file_id)
        if file is None:
            where = f"archived steps {blocks[0].first:,} to {blocks[-1].last:,} of segment {segment} cannot be read"
            raise UnreadableArchive(f"{where}: the store has lost their file; restore the store from a backup")
        steps = read_file(file, first=blocks[0].first, end=blocks[-1].last + 1, metrics=metrics)
        found.update((first, part.metrics) for first, part in _split(steps, blocks))
    return found


def read_file(file: ArchivedFile, *, first: int, end: int, metrics: Sequence[str]) -> StepBlock:
    """The steps [first, end) of a file. Raises UnreadableArchive."""
    try:
        metadata = _footer(file.place, file.name, file.num_bytes)
        source = places.RemoteFile(places.opened(file.place), file.name, file.num_bytes)
        return parquet.decode(source, metadata=metadata, first=first, end=end, metrics=metrics)
    except places.PlaceError as error:
        raise UnreadableArchive(f"{_what(file)}: {error}") from error
    except parquet.DamagedFile as error:
        raise UnreadableArchive(
            f"{_what(file)}: {file.place}/{file.name} is damaged: {error}; restore that file from a backup of the place"
        ) from error


def _split(steps: StepBlock, blocks: Sequence[Wanted]) -> Iterator[tuple[int, StepBlock]]:
    firsts = np.searchsorted(steps.steps, [block.first for block in blocks]).tolist()
    ends = np.searchsorted(steps.steps, [block.last + 1 for block in blocks]).tolist()
    for block, first, end in zip(blocks, firsts, ends, strict=True):
        yield block.first, steps.at(slice(first, end))


@lru_cache(maxsize=MAX_FOOTERS)
def _footer(place: str, name: str, num_bytes: int) -> pq.FileMetaData:
    return parquet.metadata_of(places.RemoteFile(places.opened(place), name, num_bytes))


def _what(file: ArchivedFile) -> str:
    return f"the archived steps {file.first_step:,} to {file.last_step:,} of the run {file.run!r} cannot be read"
