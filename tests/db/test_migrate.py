"""Migrations go up and down, and drift is found."""

import math
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from db import commands, frames, migrate, queries
from db.dialects import dialect_of
from db.lineage import StepRange, in_opening_order
from db.models import Base, Feature, Metric, Rollup, Run
from db.records import access, hardware, policies, preflights
from db.runs import mlflow
from db.steps import filling
from db.steps.archived.files import ArchivedFile, FileState
from db.store import features, leader
from db.store.engine import create_engine, reading, writing
from db.upkeep import retention
from tests.db.seed import NOW, add_incident_records, add_run, add_segment, add_steps


def test_an_empty_database_is_brought_to_the_newest_schema_and_back(database_url: str) -> None:
    engine = create_engine(database_url)
    migrate.upgrade(engine)
    assert set(Base.metadata.tables) <= set(sa.inspect(engine).get_table_names())
    migrate.downgrade(engine, "base")
    assert set(sa.inspect(engine).get_table_names()) == {"alembic_version"}
    engine.dispose()


def test_upgrading_twice_changes_nothing(engine: sa.Engine) -> None:
    with writing(engine) as session:
        add_run(session)
    migrate.upgrade(engine)
    with reading(engine) as session:
        assert session.scalar(sa.text("SELECT count(*) FROM runs")) == 1


def test_roll_ups_are_filled_in_for_stored_steps(engine: sa.Engine) -> None:
    def kept() -> list[list[tuple[object, ...]]]:
        with reading(engine) as session:
            names = [tuple(row) for row in session.execute(sa.select(Metric.run_pk, Metric.name))]
            columns = [column for column in Rollup.__table__.columns if column.name not in ("metric", "mean")]
            found = sa.select(Metric.name, *columns).join_from(
                Rollup, Metric, sa.and_(Metric.run_pk == Rollup.run_pk, Metric.number == Rollup.metric)
            )
            rows = [tuple(row) for row in session.execute(found)]
        return [sorted(names), sorted(rows, key=repr)]

    with writing(engine) as session:
        session.execute(sa.delete(Feature))  # only segments without blocks have every level
        for run_id in ("r1", "r2"):
            run = add_run(session, run_id)
            first = add_segment(session, run, "a")
            for begin in range(0, 300, 70):
                loss = [math.nan if step % 40 == 0 else step / 7 for step in range(begin, begin + 70)]
                add_steps(session, run, first, range(begin, begin + 70), loss=loss, **{"eval/loss": loss})
            add_steps(session, run, add_segment(session, run, "b", fork_step=200), range(200, 300))
    before = kept()
    assert len(before[1]) > 50
    migrate.downgrade(engine, "0001")
    migrate.upgrade(engine)
    assert kept() == before
    assert migrate.drift(engine) is None
    with writing(engine) as session:
        session.execute(sa.delete(Rollup))
        filling.fill_in(session, max_steps=33)  # the chunks do not matter
    assert kept() == before


FORGOTTEN: dict[str, set[str] | None] = {
    "runs": {
        *("revision", "lease_writer", "lease_session", "lease_process", "lease_until", "restorable_tiers"),
        *("tags", "note", "archived_at"),
    },
    "watch_states": {"segment", "seen_step"},
    "orders": {
        *("key", "remedies"),
        *("segment", "step", "expires_at", "expires_step", "approved_by", "signature", "refusal"),
    },
    "interventions": {"remedies"},
    "incidents": {"verdict"},
    "tokens": None,
    "audit": None,
    "pulses": None,
    "mlflow_experiments": None,
    "mlflow_runs": None,
    "policy_layers": None,
    "retentions": None,
    "hardware_samples": None,
    "leaders": None,
    "preflights": None,
    "step_notes": None,
    "segments": {"has_blocks", "num_packed", "live_order", "writer"},
    "features": None,
    "step_blocks": None,
    "block_values": None,
    "archived_files": None,
    "schema_compatibility": None,
}
"""Columns and whole tables whose contents a migration down gives up."""


def everything(engine: sa.Engine, *, lasting: bool) -> dict[str, list[str]]:
    """Every row of every table that there is, each once; `lasting`: without what a migration down gives up."""
    tables = sa.MetaData()
    found = {}
    with engine.connect() as connection:
        partitions = dialect_of(connection).partitions(connection)
        tables.reflect(connection, only=lambda name, _: name not in partitions)
        for name, table in tables.tables.items():
            gone = FORGOTTEN.get(name, set()) if lasting else set()
            if gone is not None and name != "alembic_version":
                columns = [column for column in table.columns if column.name not in gone]
                found[name] = sorted(map(repr, connection.execute(sa.select(*columns)).all()))
    return found


def removable_file(run: Run) -> ArchivedFile:
    """One that holds no archived steps any more: with others a migration down is refused."""
    values: dict[str, Any] = {"place": "file:///x", "name": "r1/0.parquet", "sha256": "0" * 64, "num_bytes": 1}
    bounds = {"segment": 0, "first_step": 0, "last_step": 9, "num_steps": 10}
    return ArchivedFile(run_pk=run.pk, run=run.id, state=FileState.REMOVING, changed_at=NOW, **values, **bounds)


def fill_every_table(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(150), loss=[1.0, math.nan, None] * 50)
        add_steps(session, run, add_segment(session, run, "b", fork_step=100), range(100, 200))
        add_incident_records(session, run, {"why": "so"})
        other = add_run(session, "r2")
        for steps in (range(800), range(800, 810)):  # a block, and rows
            add_steps(session, other, add_segment(session, other, "a"), steps)
        commands.save_snapshot(session, run=run, segment=0, step=100, state={"x": 1})
        commands.run_status_of(session, run=run, now=NOW)
        mlflow.create_experiment(session, name="gpt", tags={}, now=NOW)
        mlflow.create_run(session, run=run, experiment=1, user="me", tags={})
        policies.set_fields(session, key=policies.run_key("r1"), fields={"mode": "observe"}, who="me", now=NOW, run=run)
        retention.set_days(session, project="gpt", days=30.0, now=NOW)
        preflights.save_answer(session, run=run, intervention=1, answer={}, now=NOW)
        sample = {"time": NOW, "step": 3, "host": "h", "device": "gpu0", "values": {"power": 1.0}}
        hardware.add_samples(session, run=run, samples=[sample])
        session.add(removable_file(run))
        leader.claim(session, role="r", holder="me", seconds=1.0)
        access.create_token(session, name="t", scopes=[access.Scope.READ], project=None, now=NOW)
        access.record(session, who="me", action="rollback", run="r1", details={}, now=NOW)


@pytest.mark.slow
def test_migrations_step_by_step_down_and_up_lose_no_row(engine: sa.Engine) -> None:
    fill_every_table(engine)
    assert all(everything(engine, lasting=False).values()), "every table has rows, so that there is something to lose"
    migrate.downgrade(engine, "0019")  # blocks become rows and stay rows: the test below
    migrate.upgrade(engine)
    before = everything(engine, lasting=True)
    revisions = [one.revision for one in ScriptDirectory(str(migrate.MIGRATIONS)).walk_revisions()]  # newest first
    for move, revision in [(migrate.downgrade, one) for one in revisions[1:]] + [
        (migrate.upgrade, one) for one in revisions[-2::-1]
    ]:
        move(engine, revision)
        now = everything(engine, lasting=True)
        assert now == {name: before[name] for name in now}, (move.__name__, revision)
    assert set(now) == set(before)
    assert migrate.drift(engine) is None


def test_the_lines_of_runs_of_an_earlier_release_stay_as_they_are(engine: sa.Engine) -> None:
    """A spool that came late was opened before the segment that the line led to."""
    opened_at = [0.0, 9.0, 5.0, 7.0, 12.0]
    with writing(engine) as session:
        run = add_run(session)
        for number, at in enumerate(opened_at):
            add_segment(session, run, f"k{number}", fork_step=10 * number).opened_at = at
    migrate.downgrade(engine, "0025")
    for _ in range(2):
        migrate.upgrade(engine)
        with reading(engine) as session:
            (run,) = queries.runs(session)
            opened = in_opening_order(queries.segments(session, run=run))
            assert [one.number for one in opened] == [0, 2, 3, 1, 4]
            assert [one.live_order for one in opened] == [None, 1, 2, 3, None]
        migrate.downgrade(engine, "0025")
    migrate.upgrade(engine)
    assert migrate.drift(engine) is None


def test_blocks_become_rows_with_all_their_roll_ups_when_the_schema_goes_back(engine: sa.Engine) -> None:
    def read() -> list[str]:
        with reading(engine) as session:
            (run,) = queries.runs(session)
            series = [
                queries.series(session, run=run, step_ranges=[StepRange(0, 0, None)], metric="loss", points=points)
                for points in (5, 40)
            ]
            extremes = [(one.first_step, one.min, one.max, one.count, one.non_finite) for one in series]
            return [frames.steps(session, run=run).to_csv(), *map(str, extremes)]

    loss = [math.nan if step % 40 == 0 else step / 7 for step in range(1200)]
    with writing(engine) as session:
        run = add_run(session)
        add_steps(
            session, run, add_segment(session, run, "a"), range(1200), loss=loss, **{"eval/loss": [None, 1.5] * 600}
        )
        assert session.scalar(sa.text("SELECT count(*) FROM steps")) == 0
    before = read()
    migrate.downgrade(engine, "0019")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM steps")) == 1200
        finest = "SELECT count(*) FROM rollups WHERE level = 1"
        assert connection.scalar(sa.text(finest)) == 3 * 1200 // 16  # with the perplexity
    migrate.upgrade(engine)
    assert read() == before


def test_an_upgraded_server_stores_rows_until_blocks_are_enabled(engine: sa.Engine) -> None:
    with writing(engine) as session:
        add_run(session)
    migrate.downgrade(engine, "0019")
    migrate.upgrade(engine)
    with writing(engine) as session:
        is_file = engine.dialect.name == "sqlite"
        assert features.is_enabled(session, features.BLOCKS) == is_file
        run = queries.runs(session)[0]
        segment = add_segment(session, run, "a")
        add_steps(session, run, segment, range(600))
        assert segment.num_packed == (600 if is_file else 0)


def test_a_fresh_store_has_no_drift(engine: sa.Engine) -> None:
    assert migrate.drift(engine) is None


def test_a_missing_column_is_drift(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE events DROP COLUMN kind")
    assert "kind" in (migrate.drift(engine) or "")


def test_a_database_without_a_schema_asks_for_an_upgrade(database_url: str) -> None:
    engine = create_engine(database_url)
    assert "python -m db upgrade" in (migrate.drift(engine) or "")
    engine.dispose()


def test_a_schema_that_knows_no_files_is_refused_while_they_have_steps(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        file = removable_file(run)
        file.state = FileState.KEPT
        session.add(file)
    with pytest.raises(CommandError, match="python -m db unarchive --all"):
        migrate.downgrade(engine, "0020")
    assert migrate.drift(engine) is None
