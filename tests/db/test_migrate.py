"""Migrations go up and down, and drift is found."""

import sqlalchemy as sa
from alembic.script import ScriptDirectory

from db import migrate
from db.models import Base
from db.store.engine import BASELINE, FIRST_LATER, create_engine, reading, writing
from tests.db.seed import add_run


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


def test_no_migration_has_a_number_of_a_pre_release() -> None:
    numbers = sorted(one.revision for one in ScriptDirectory(str(migrate.MIGRATIONS)).walk_revisions())
    assert numbers[0] == BASELINE
    assert all(number >= FIRST_LATER for number in numbers[1:])


def test_no_migration_imports_code_that_changes_later() -> None:
    for file in (migrate.MIGRATIONS / "versions").glob("*.py"):
        lines = file.read_text(encoding="utf-8").splitlines()
        imported = [line.split()[1].split(".")[0] for line in lines if line.strip().startswith(("import ", "from "))]
        assert set(imported) <= {"sqlalchemy", "alembic", "typing"}, file.name


def test_a_missing_column_is_drift(engine: sa.Engine) -> None:
    assert migrate.drift(engine) is None
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE events DROP COLUMN kind")
    assert "kind" in (migrate.drift(engine) or "")


def test_a_database_without_a_schema_asks_for_an_upgrade(database_url: str) -> None:
    engine = create_engine(database_url)
    assert "python -m db upgrade" in (migrate.drift(engine) or "")
    engine.dispose()
