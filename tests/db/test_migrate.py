"""Migrations go up and down, and drift is told."""

import sqlalchemy as sa

from db import migrate
from db.engine import create_engine, reading, writing
from db.models import Base
from tests.db.seed import add_run


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
