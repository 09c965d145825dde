"""Move the values of an ended run to files in a place, one file at a time.

The row of a file is committed first. Then it is written, read back and compared with the steps, bit for bit. Then, in
one transaction that locks the run, the file becomes `kept` and the values are deleted: only if the run is still as it
was when they were read. Killed at any moment, each value is in the store or in a file that is `kept`, and never in
both; the next archiving removes what was left over, and goes on with the other steps.
"""

import hashlib
import io
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.archive import blocks
from db.archive.blocks import difference
from db.lineage import StepRange, end_of
from db.models import Run, Segment
from db.records import access
from db.steps import backlog, reader
from db.steps.archived import files, parquet
from db.steps.archived.files import ArchivedFile, FileState
from db.steps.archived.places import Place, PlaceError, path_segment
from db.steps.blocks import metric_numbers, read_blocks
from db.steps.step_block import RunRange, StepBlock
from db.store import leader
from db.store.engine import reading, writing
from lossguard.vocabulary.states import RunState

MAX_STEPS = 262_144
MAX_VALUES = 16_777_216
"""Steps times metrics of a file: 128 MB of memory for its numbers."""


# One process at a time archives, brings back, or removes files of a store: a lease by the clock of the database.

ROLE = "archive"
LEASE_SECONDS = 120.0
"""Duration of the lease, which every file renews: longer than its upload. A killed process blocks others as long."""


class Busy(RuntimeError):
    """Another process has the turn; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class ArchiveLease:
    """The lease of the archive, which is ours as long as it is renewed in time."""

    holder: str

    def renew(self, session: Session) -> None:
        """Keep it; it cannot be lost before the transaction ends. Raises Busy when another process has it."""
        if leader.claim(session, role=ROLE, holder=self.holder, seconds=LEASE_SECONDS) is None:
            raise Busy(
                "another process archives steps of this store, or was killed less than "
                f"{LEASE_SECONDS / 60:.0f} minutes ago; try again then"
            )


@contextmanager
def turn_taken(engine: sa.Engine) -> Iterator[ArchiveLease]:
    """The turn for the duration of the block. Raises Busy."""
    turn = ArchiveLease(secrets.token_hex(8))
    with writing(engine) as session:
        turn.renew(session)
    try:
        yield turn
    finally:
        with writing(engine) as session:
            if lease := leader.claim(session, role=ROLE, holder=turn.holder, seconds=1.0):
                leader.resign(session, lease)


# The files of a run

CHANGED = "it was resumed, changed or deleted meanwhile; its other steps stay in the store"


class RunChanged(RuntimeError):
    """The run was resumed, changed or deleted meanwhile; the steps at hand stay in the store."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was archived."""

    num_steps: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class _Work:
    """Steps as they were at a revision of the run."""

    run_pk: int
    run_id: str
    revision: int
    block: StepBlock


def prepare(engine: sa.Engine, place: Place) -> None:
    """See that a place can be written, before the first run is archived there. Raises PlaceError."""
    with reading(engine) as session:
        # Those that it keeps, and those that are being written or to be removed.
        has_files = session.scalar(sa.select(sa.exists().where(ArchivedFile.place == place.url)))
    place.prepare(has_files=bool(has_files))


def archive_run(
    engine: sa.Engine,
    *,
    run_id: str,
    place: Place,
    turn: ArchiveLease,
    now: float,
    who: str,
    on_file: Callable[[Written], object],
) -> None:
    """Archive all steps of the run whose values are in the store, to a place that is prepared. `on_file` is called
    after each file.

    Raises RunChanged, DamagedBlock, PlaceError, Busy; what was archived before that stays archived.
    """
    folder = f"{path_segment(run_id)}/{secrets.token_hex(8)}"
    is_first = True
    pack(engine, run_id=run_id, turn=turn)
    while work := _next_work(engine, run_id):
        on_file(_archive(engine, work, place=place, folder=folder, turn=turn, now=now, who=who if is_first else None))
        is_first = False
    with writing(engine) as session:  # nothing is left, until the run changes: the next call need not look at it
        run = queries.run_named(session, run_id=run_id)
        if run is not None and (held := files.of_run(session, run_pk=run.pk)):
            held[-1].complete_at_revision = run.revision


def pack(engine: sa.Engine, *, run_id: str, turn: ArchiveLease) -> None:
    """Make blocks of the rows of the run, and let blocks end where what is archived begins or ends.

    Raises RunChanged, Busy.
    """
    while True:
        with writing(engine) as session:
            turn.renew(session)
            run = _ended(commands.lock_run(session, run_id=run_id))
            if backlog.pack_some(session, run=run) is None:
                for part in _archivable(queries.segments(session, run=run)):
                    blocks.cut(session, run=run, segment=part.segment, edges=[part.first, end_of(part)])
                return


def _next_work(engine: sa.Engine, run_id: str) -> _Work | None:
    """The next steps to archive; None without any. Raises RunChanged, DamagedBlock."""
    with reading(engine) as session:
        run = _ended(queries.run_named(session, run_id=run_id))
        metrics = queries.metric_names(session, run=run)
        limit = max(1, min(MAX_STEPS, MAX_VALUES // max(1, len(metrics))))
        for part in _archivable(queries.segments(session, run=run)):
            if found := blocks.first_in_store(session, run_pk=run.pk, within=part, max_steps=limit):
                numbers = metric_numbers(session, [run.pk], metrics)
                (block,) = read_blocks(session, [RunRange(run.pk, found)], metrics, numbers)
                reader.check_nothing_is_lost(session, RunRange(run.pk, found), block)
                return _Work(run.pk, run.id, run.revision, block)
    return None


def _archivable(tree: Sequence[Segment]) -> Iterator[StepRange]:
    """Return the archivable steps of all segments, by number."""
    for segment in tree:
        if segment.first_step is not None and segment.last_step is not None:
            forks = [one.fork_step for one in tree if one.parent == segment.number and one.fork_step is not None]
            for low, high in files.archivable(segment.first_step, segment.last_step, forks):
                yield StepRange(segment.number, low, high)


def _ended(run: Run | None) -> Run:
    if run is None or run.state == RunState.RUNNING:
        what = "deleted" if run is None else "resumed"
        raise RunChanged(f"it was {what} meanwhile; its other steps stay in the store")
    return run


def _archive(
    engine: sa.Engine, work: _Work, *, place: Place, folder: str, turn: ArchiveLease, now: float, who: str | None
) -> Written:
    block = work.block
    content = parquet.encode(block)
    name = f"{folder}/{block.segment:04}-{int(block.steps[0]):012}.parquet"
    file = _row(work, place, name, content, now)
    with writing(engine) as session:
        turn.renew(session)
        # Locked so, the run cannot be deleted before the transaction ends.
        same_run = sa.select(Run.pk).where(Run.pk == work.run_pk).with_for_update(read=True, key_share=True)
        if session.scalar(same_run) is None:
            raise RunChanged(CHANGED)
        session.add(file)
        session.flush()
        file_id = file.id
    try:
        place.write(name, content)
        check_copy(block, place.read(name), where=f"{place.url}/{name}")
        with writing(engine) as session:
            _commit(session, work, file_id, turn=turn, who=who, now=now)
    except (PlaceError, RunChanged, Busy):  # its name is ours alone, whoever has the turn now
        _give_up(engine, place, name, file_id)
        raise
    return Written(len(block), len(content))


def _row(work: _Work, place: Place, name: str, content: bytes, now: float) -> ArchivedFile:
    steps = work.block.steps
    first, last = int(steps[0]), int(steps[-1])
    return ArchivedFile(
        run_pk=work.run_pk,
        run=work.run_id,
        state=FileState.WRITING,
        place=place.url,
        name=name,
        segment=work.block.segment,
        first_step=first,
        last_step=last,
        num_steps=len(steps),
        num_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        changed_at=now,
    )


def check_copy(block: StepBlock, content: bytes, *, where: str) -> None:
    """Raise PlaceError unless the content of a file, as it was read back, is these steps."""
    try:
        found = parquet.decode_whole(io.BytesIO(content), metrics=list(block.metrics))
        differs = difference(block, found)
    except parquet.DamagedFile as error:
        differs = str(error)
    if differs is not None:
        raise PlaceError(f"{where} was read back with {differs}; the steps stay in the store")


def _commit(session: Session, work: _Work, file_id: int, *, turn: ArchiveLease, who: str | None, now: float) -> None:
    """Let the file be kept, and delete its steps. Raises RunChanged, Busy; then nothing is changed."""
    turn.renew(session)
    run = commands.lock_run(session, run_id=work.run_id)
    if run is None or run.state == RunState.RUNNING:
        raise RunChanged(CHANGED)
    if (run.pk, run.revision) != (work.run_pk, work.revision + 1):  # the lock alone has raised it by one
        raise RunChanged(CHANGED)
    file = session.get(ArchivedFile, file_id, populate_existing=True, with_for_update=True)
    if file is None or file.state != FileState.WRITING:
        raise Busy("another process took this archiving for a dead one, and removed its file; start again")
    file.state, file.changed_at = FileState.KEPT, now
    blocks.put_away(session, run=run, file=file)
    if who is not None:
        access.record(session, who=who, action="archive steps", run=run.id, details={"place": file.place}, now=now)


def _give_up(engine: sa.Engine, place: Place, name: str, file_id: int) -> None:
    """Remove a file that is not to be kept. Where that fails too, its row makes the next archiving remove it."""
    try:
        place.remove(name)
    except PlaceError:
        return
    with writing(engine) as session:
        session.execute(
            sa.delete(ArchivedFile).where(ArchivedFile.id == file_id, ArchivedFile.state == FileState.WRITING)
        )
