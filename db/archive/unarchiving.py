"""Bring the values of archived steps back into the store, one file at a time.

In one transaction that locks the run, they are stored, read back and compared, and the file is to be removed; then it
is. Killed at any moment, each value is in the store or in a file that is `kept`, and never in both.
"""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.archive import blocks, inventory
from db.archive.archiving import ArchiveLease, Written
from db.archive.blocks import difference
from db.models import Run
from db.records import access
from db.steps.archived import files, parquet, places
from db.steps.archived.files import ArchivedFile, FileState
from db.steps.step_block import StepBlock
from db.store.engine import reading, writing


class CannotBringBack(RuntimeError):
    """The steps of a file stay archived; the message is one sentence."""

    def __init__(self, file: ArchivedFile, why: str) -> None:
        super().__init__(f"the {file.described} stay archived: {why}")


def unarchive_run(
    engine: sa.Engine, *, run_id: str, turn: ArchiveLease, now: float, who: str, on_file: Callable[[Written], object]
) -> None:
    """Bring back all archived steps of a run, and remove their files. `on_file` is called after each file.

    A file that cannot be removed is left to the next archiving. Raises CannotBringBack, PlaceError, Busy; what was
    brought back before that stays so.
    """
    is_first = True
    while file := _next_file(engine, run_id):
        try:
            steps = read_whole(file)
        except CannotBringBack:
            again = _next_file(engine, run_id)
            if again is not None and again.id == file.id:
                raise
            continue  # the run was deleted meanwhile, and its file removed
        with writing(engine) as session:
            turn.renew(session)
            run = commands.lock_run(session, run_id=run_id)
            if run is None:
                return
            if not bring_back(session, run=run, file_id=file.id, steps=steps, now=now):
                continue
            if is_first:
                details = {"place": file.place}
                access.record(session, who=who, action="unarchive steps", run=run.id, details=details, now=now)
        is_first = False
        with suppress(places.PlaceError):  # its row says that it is to be removed
            places.opened(file.place).remove(file.name)
            inventory.forget(engine, file.id)
        on_file(Written(file.num_steps, file.num_bytes))


def read_whole(file: ArchivedFile) -> StepBlock:
    """Read all steps of a file. Raises CannotBringBack unless it is, to the last byte, the one that was written.

    Raises PlaceError where the place cannot be used.
    """
    try:
        content = places.opened(file.place).read(file.name)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise parquet.DamagedFile("its checksum is not the one that it was written with")
        return parquet.decode_whole(io.BytesIO(content))
    except places.FileMissing as error:
        raise CannotBringBack(file, f"{error}; restore it from a backup of the place") from error
    except parquet.DamagedFile as error:
        remedy = "restore that file from a backup of the place"
        raise CannotBringBack(file, f"{file.place}/{file.name} is damaged: {error}; {remedy}") from error


def bring_back(session: Session, *, run: Run, file_id: int, steps: StepBlock, now: float) -> bool:
    """Store the values of a file again: whether they were archived still. The caller has locked the run."""
    file = session.get(ArchivedFile, file_id, populate_existing=True)
    if file is None or file.run_pk != run.pk or file.state != FileState.KEPT:
        return False
    stored = blocks.put_back(session, run=run, file=file, steps=steps)
    differs = difference(steps.at(np.flatnonzero(np.isin(steps.steps, stored.steps))), stored)
    if differs is not None:
        raise CannotBringBack(file, f"the store would have {differs}")
    file.state, file.changed_at = FileState.REMOVING, now
    session.flush()
    return True


def _next_file(engine: sa.Engine, run_id: str) -> ArchivedFile | None:
    with reading(engine) as session:
        run = queries.run_named(session, run_id=run_id)
        found = files.of_run(session, run_pk=run.pk) if run is not None else []
        session.expunge_all()
    return found[0] if found else None
