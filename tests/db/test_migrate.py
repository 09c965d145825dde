"""Migrations go up and down, and drift is told."""

import math

import sqlalchemy as sa

from db import migrate, rollups
from db.engine import create_engine, reading, writing
from db.models import Base, Metric, Rollup
from tests.db.seed import add_run, add_segment, add_steps


def test_an_empty_database_is_brought_to_the_newest_schema_and_back(database_url: str) -> None:
    engine = create_engine(database_url)
    migrate.upgrade(engine)
    assert set(Base.metadata.tables) <= set(sa.inspect(engine).get_table_names())
    migrate.downgrade(engine, "base")
    assert set(sa.inspect(engine).get_table_names()) == {"alembic_version"}
    engine.dispose()


def test_upgrading_twice_keeps_what_is_stored(engine: sa.Engine) -> None:
    with writing(engine) as session:
        add_run(session)
    migrate.upgrade(engine)
    with reading(engine) as session:
        assert session.scalar(sa.text("SELECT count(*) FROM runs")) == 1


def test_roll_ups_are_filled_in_for_what_is_stored_already(engine: sa.Engine) -> None:
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
        rollups.fill_in(session, chunk=33)  # the chunks do not matter
    assert kept() == before


def test_a_fresh_store_has_no_drift(engine: sa.Engine) -> None:
    assert migrate.drift(engine) is None


def test_a_missing_column_is_told_as_drift(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE events DROP COLUMN kind")
    assert "kind" in (migrate.drift(engine) or "")


def test_a_database_without_a_schema_is_told_to_upgrade(database_url: str) -> None:
    engine = create_engine(database_url)
    assert "python -m db upgrade" in (migrate.drift(engine) or "")
    engine.dispose()
