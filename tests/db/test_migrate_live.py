"""Migrations run on a store that is in use: they wait for nobody for long, and nobody waits for them."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from db import migrate
from db.store.engine import BASELINE, create_engine
from tests import postgres
from tests.db.seed import bring_later_release
from tests.waiting import eventually

MAX_LOCKED_TABLES = 4
"""Existing tables that one migration may lock against writers: for each of them it waits up to 0.2 s."""
SMALL_TABLES = {
    *("runs", "pulses", "detection_states", "policy_layers", "preflights", "mlflow_runs", "mlflow_experiments"),
    *("tokens", "leaders", "retentions"),
}
"""Tables with a row a run or fewer: an index of them takes a moment."""
REFUSED = {
    r"ALTER TABLE \S+ ALTER COLUMN \S+ TYPE": "rewrites the table; add a column and fill it in the background",
    r"ALTER TABLE \S+ ALTER COLUMN \S+ SET NOT NULL": "reads the whole table; add a CHECK .. NOT VALID and validate it",
    r"ALTER TABLE \S+ (DROP COLUMN|RENAME)": "breaks the collectors of the previous release; do it in the next release",
    r"ALTER TABLE \S+ ADD COLUMN .*(GENERATED|SERIAL|random|clock_timestamp)": "rewrites the table",
    r"DROP TABLE": "breaks the collectors of the previous release; do it in the next release",
    r"(CLUSTER|VACUUM FULL|REINDEX (?!.*CONCURRENTLY))": "locks the table while it is rewritten",
    r"(UPDATE|DELETE FROM) (?!alembic_version)": "takes as long as there are rows; do it in the background, in parts",
}
"""What the SQL of a migration must not have, and what to do instead."""


def refusals(statements: list[str]) -> Iterator[str]:
    """Why these statements of one migration would stop the reports of a store in use."""
    created = {name for one in statements for name in re.findall(r"^\s*CREATE TABLE (\S+)", one)}
    for statement in (" ".join(one.split()) for one in statements):
        renamed = re.match(r"ALTER (?:TABLE|INDEX) (\S+) RENAME", statement)
        if statement.startswith("DELETE FROM schema_compatibility"):
            continue  # it has one row
        for pattern, reason in REFUSED.items():
            if re.match(pattern, statement, re.IGNORECASE) and not (renamed and renamed[1] in created):
                yield f"{statement[:80]}: {reason}"
        table = re.match(r"ALTER TABLE (\S+) ADD (CONSTRAINT|FOREIGN|CHECK|UNIQUE|PRIMARY)", statement)
        if table and table[1] not in created and "NOT VALID" not in statement and "USING INDEX" not in statement:
            yield f"{statement[:80]}: reads the whole table; add it NOT VALID, and validate it in a further migration"
        index = re.match(r"CREATE (?:UNIQUE )?INDEX (CONCURRENTLY)?.* ON (?:ONLY )?(\S+)", statement)
        if index and not index[1] and index[2] not in created | SMALL_TABLES:
            yield f"{statement[:80]}: blocks every writer of the table; create it CONCURRENTLY, see docs/operations.md"


def test_the_rules_refuse_what_takes_as_long_as_a_table_is_large() -> None:
    for statement in (
        "ALTER TABLE steps ALTER COLUMN loss TYPE REAL",
        "ALTER TABLE segments ALTER COLUMN key SET NOT NULL",
        "ALTER TABLE segments DROP COLUMN key",
        "ALTER TABLE steps ADD CONSTRAINT c CHECK (step >= 0)",
        "CREATE INDEX ix_steps_time ON steps (time)",
        "UPDATE segments SET num_steps = 0",
        "DROP TABLE steps",
    ):
        assert list(refusals([statement])), statement


def live_revisions() -> list[str]:
    """Those that must keep the rules: all but the baseline."""
    return sorted(one.revision for one in ScriptDirectory(str(migrate.MIGRATIONS)).walk_revisions())[1:]


@pytest.fixture
def store(postgres_server: postgres.Server, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """A PostgreSQL store at the baseline, with a few rows."""
    name = f"live{abs(hash(request.node.name))}"
    engine = create_engine(postgres_server.create_database(name))
    migrate.upgrade(engine, BASELINE)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO runs (id, project, state, config, devices, versions, capabilities, restorable_steps,"
            " started_at, last_report_at) SELECT 'r' || n, 'p', 'finished', '{}', '[]', '{}', '[]', '[]', 0, 0"
            " FROM generate_series(1, 3) n"
        )
        connection.exec_driver_sql("INSERT INTO steps SELECT pk, 0, n, n, '' FROM runs, generate_series(1, 100) n")
    yield engine
    engine.dispose()
    postgres_server.drop_database(name)


@pytest.mark.needs("postgresql")
def test_the_migrations_of_a_store_in_use_rewrite_no_table_and_lock_few(store: sa.Engine) -> None:
    statements: list[str] = []
    locked: set[str] = set()

    def note(connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)
        if statement.startswith("UPDATE alembic_version"):  # the last one of a migration
            locked.update(_locked_tables(connection))

    sa.event.listen(store, "before_cursor_execute", note)
    for revision in live_revisions():
        statements.clear()
        locked.clear()
        files = _table_files(store)
        migrate.upgrade(store, revision)
        assert not list(refusals(statements)), revision
        old = locked & files.keys()
        assert len(old) <= MAX_LOCKED_TABLES, f"{revision} locks {sorted(old)} at once; make several migrations of it"
        assert set(files.values()) <= set(_table_files(store).values()), f"{revision} rewrites a table"


def _locked_tables(connection: sa.Connection) -> list[str]:
    """The tables that this transaction keeps writers from."""
    cursor = connection.connection.cursor()  # the driver's own, so that the query is not noted
    cursor.execute(
        "SELECT relation::regclass::text FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"
        " AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
    )
    return [name for (name,) in cursor.fetchall()]


def _table_files(engine: sa.Engine) -> dict[str, int]:
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT relname, relfilenode FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        return {name: file for name, file in found if name != "alembic_version"}


COLUMN = """
    op.add_column("runs", sa.Column("later", sa.Integer()))
"""
INDEX = """
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.drop_index("ix_steps_time", "steps", if_exists=True, postgresql_concurrently=True)
        op.create_index("ix_steps_time", "steps", ["time"], postgresql_concurrently=True)
"""
"""An index of a big table, as docs/operations.md says; one that an attempt left unfinished is created anew."""


@pytest.mark.needs("postgresql")
def test_a_migration_waits_for_an_open_transaction_without_holding_up_the_others(
    store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs a lock that a transaction with a change of a run has not given up yet."""
    monkeypatch.setattr(migrate, "RETRY_SECONDS", 0.05)
    bring_later_release(tmp_path, monkeypatch, COLUMN)
    attempts = threading.Semaphore(0)
    sa.event.listen(store, "handle_error", lambda _: attempts.release())
    upgrade = threading.Thread(target=migrate.upgrade, args=(store,))
    with store.begin() as longer:
        longer.exec_driver_sql("UPDATE runs SET note = 'x' WHERE id = 'r1'")
        upgrade.start()
        for _ in range(3):
            assert attempts.acquire(timeout=60), "the lock was not asked for"
            with store.begin() as other:
                other.exec_driver_sql("SET LOCAL statement_timeout = 60000")
                other.exec_driver_sql("UPDATE runs SET note = 'y' WHERE id = 'r2'")
    upgrade.join(60)
    assert migrate.revisions(store)[0] == "9999"


@pytest.mark.needs("postgresql")
def test_a_migration_that_never_gets_its_locks_says_who_has_them_and_changes_nothing(
    store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = migrate.revisions(store)[0]
    bring_later_release(tmp_path, monkeypatch, COLUMN)
    with store.begin() as longer:
        longer.exec_driver_sql("UPDATE runs SET note = 'x' WHERE id = 'r1'")
        (process,) = longer.exec_driver_sql("SELECT pg_backend_pid()").one()
        named = rf"after {before} got no lock .* process {process}, .*: end it"
        with pytest.raises(migrate.StoreInUse, match=named):
            migrate.upgrade(store, patience=0.0)
    assert migrate.revisions(store)[0] == before
    migrate.upgrade(store)


@pytest.mark.needs("postgresql")
def test_an_index_of_a_big_table_is_created_while_a_transaction_writes_to_it(
    store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt before it was killed, so that there is an invalid index of that name."""
    bring_later_release(tmp_path, monkeypatch, INDEX)
    with store.begin() as connection:
        connection.exec_driver_sql("CREATE INDEX ix_steps_time ON steps (time)")
        connection.exec_driver_sql(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_steps_time'::regclass"
        )
    upgrade = threading.Thread(target=migrate.upgrade, args=(store, "9999"))
    with store.begin() as longer:
        longer.exec_driver_sql("INSERT INTO steps VALUES (1, 0, 1000, 0, '')")
        upgrade.start()
        assert eventually(lambda: _waits(store))
        with store.begin() as other:
            other.exec_driver_sql("SET LOCAL statement_timeout = 60000")
            other.exec_driver_sql("INSERT INTO steps VALUES (1, 0, 1001, 0, '')")
    upgrade.join(60)
    with store.connect() as connection:
        valid = connection.exec_driver_sql(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_steps_time'::regclass"
        )
        assert valid.scalar_one()
    assert migrate.revisions(store)[0] == "9999"


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'INDEX CONCURRENTLY' AND wait_event_type = 'Lock'"


def _waits(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.exec_driver_sql(WAITING).scalar_one())
