"""What the scorecard reads of the store, on SQLite and PostgreSQL."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import StoredBlock
from db.scorecard import ScorecardRun, StoredSegment, chosen_runs, read_runs
from db.steps import writer
from db.steps.archived import files
from db.steps.archived.places import Place
from db.store.engine import reading, writing
from tests.db.archive.stored import archive
from tests.db.seed import NOW, add_incident_records, add_run, add_segment, add_steps, end_run


def stored_runs(session: Session) -> list[ScorecardRun]:
    return read_runs(session, chosen_runs(session))


def test_a_run_has_its_segments_with_their_orders_and_its_incidents(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(6))
        add_steps(session, run, add_segment(session, run, "b", 2), range(2, 10))
        add_segment(session, run, "c", None)  # a resume without a first step
        add_incident_records(session, run, {"expected": 2.0, "kind": "an older value"})
    with reading(sqlite_engine) as session:
        (stored,) = stored_runs(session)
    assert stored.segments == [StoredSegment(0, 0, 5, None), StoredSegment(1, 2, 9, 1)]
    assert stored.num_steps == 6 + 8
    ((incident),) = stored.incidents
    assert (incident.details["expected"], incident.details["kind"]) == (2.0, "loss_spike")
    assert [each["state"] for each in stored.interventions] == ["verified"]


def test_the_time_of_a_step_is_the_reported_one_or_that_of_the_rows(engine: sa.Engine) -> None:
    with writing(engine) as session:
        reporting, timed, empty = (add_run(session, run_id) for run_id in ("reporting", "timed", "empty"))
        for run, fork in ((reporting, 2), (timed, 2)):
            for key, steps in (("a", range(4)), ("b", range(fork, 10))):
                metrics = {"step_seconds": [2.0 if key == "a" else 5.0] * len(steps)} if run is reporting else {}
                add_steps(session, run, add_segment(session, run, key, steps[0]), steps, **metrics)
        add_segment(session, empty, "a")
    with reading(engine) as session:
        seconds = {run.id: run.step_seconds for run in stored_runs(session)}
    assert seconds == {"reporting": (4 * 2 + 8 * 5) / 12, "timed": 1.0, "empty": None}


def test_the_time_of_a_step_of_a_long_run_is_read_from_its_roll_ups(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as session:
        run = add_run(session)
        seconds = [2.0] * 1024 + [4.0] * 1024 + [9.0] * 10  # the last steps are in no complete roll-up
        add_steps(session, run, add_segment(session, run, "a"), range(len(seconds)), step_seconds=seconds)
    with reading(sqlite_engine) as session:
        assert stored_runs(session)[0].step_seconds == 3.0


def test_the_time_of_a_step_needs_no_archived_file_however_short_the_run_is(
    sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    """A place that is away would take the card of all other runs with it."""
    with writing(sqlite_engine) as session:
        run = add_run(session)
        for key, first in enumerate((0, 300, 310, 320)):  # no roll-up of 1,024 steps is complete
            steps = range(first, first + 600)
            segment = add_segment(session, run, str(key), first)
            add_steps(session, run, segment, steps, step_seconds=[1.0 + step % 7 for step in steps])
        end_run(session, run)
    with reading(sqlite_engine) as session:
        (before,) = stored_runs(session)
    archive(sqlite_engine, Place(str(tmp_path / "place")))
    shutil.rmtree(tmp_path / "place")
    with reading(sqlite_engine) as session:
        assert sum(steps for _, steps in files.steps_by_run(session)) > 1000
        (after,) = stored_runs(session)
    assert before.step_seconds is not None
    assert after.step_seconds == pytest.approx(before.step_seconds)


def test_rows_that_all_have_one_time_say_nothing_about_it(sqlite_engine: sa.Engine) -> None:
    """As rows of an imported file without times."""
    with writing(sqlite_engine) as session:
        run = add_run(session)
        segment = add_segment(session, run, "a")
        add_steps(session, run, segment, range(5))
        session.execute(sa.text("UPDATE steps SET time = 7"))
    with reading(sqlite_engine) as session:
        assert stored_runs(session)[0].step_seconds is None


def test_a_damaged_block_leaves_the_step_time_of_its_run_unknown_and_that_of_others_as_it_is(
    sqlite_engine: sa.Engine,
) -> None:
    with writing(sqlite_engine) as session:
        for run_id in "abc":
            run = add_run(session, run_id)
            add_steps(session, run, add_segment(session, run, "a"), range(writer.PACK_AT))
            if run_id == "b":
                damaged = sa.update(StoredBlock).where(StoredBlock.run_pk == run.pk)
                session.execute(damaged.values(times=b"\x01cut"))
    with reading(sqlite_engine) as session:
        found = {run.id: run.step_seconds for run in stored_runs(session)}
    assert found["a"] == found["c"] is not None
    assert found["b"] is None


def test_runs_are_chosen_by_project_id_and_last_report(session: Session) -> None:
    for run_id, project, later in (("early", "gpt", 0), ("other", "llama", 0), ("late", "gpt", 5)):
        add_run(session, run_id, project=project).last_report_at = NOW + later
    session.flush()
    chosen: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["late", "other", "early"]),
        ({"project": "gpt"}, ["late", "early"]),
        ({"run_id": "other"}, ["other"]),
        ({"since": NOW + 5}, ["late"]),
        ({"project": "gpt", "run_id": "other"}, []),
    ]
    for how, ids in chosen:
        assert [run.id for run in chosen_runs(session, **how)] == ids, how
