"""The leader removes the files of runs that were deleted."""

import logging
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from db import commands
from db.steps.archived.places import Place
from db.store.engine import writing
from db.store.leader import Lease
from monitor.leader.background import FileRemoval
from tests.db.archive.stored import add_ended_run, archive, parquet_files

LEASE = Lease(role="leader", holder="a", term=1, since=0.0, now=0.0)


def test_files_of_deleted_runs_go_and_a_place_that_is_away_is_said_once(
    sqlite_engine: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with writing(sqlite_engine) as session:
        add_ended_run(session)
    archive(sqlite_engine, Place(str(tmp_path / "place")))
    with writing(sqlite_engine) as session:
        run = commands.lock_run(session, run_id="r1")
        assert run is not None
        commands.delete_run(session, run=run)
    shutil.move(tmp_path / "place", tmp_path / "away")
    file_removal = FileRemoval(sqlite_engine)
    with caplog.at_level(logging.WARNING):
        file_removal.remove(LEASE, lambda: True)
        file_removal.remove(LEASE, lambda: True)
    assert ["is it mounted" in record.message for record in caplog.records] == [True]
    shutil.move(tmp_path / "away", tmp_path / "place")
    file_removal.remove(LEASE, lambda: False)
    assert parquet_files(tmp_path)
    file_removal.remove(LEASE, lambda: True)
    assert not parquet_files(tmp_path)
