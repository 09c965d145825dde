"""On PostgreSQL the blocks of 100 runs are one partition, which is there before it is needed."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from db import commands, frames, migrate
from db.cli.app import app
from db.files import imports
from db.models import BlockValues, Run, StoredBlock
from db.steps.codec import DamagedBlock
from db.store import bulk, partitions
from db.store.engine import create_engine, reading, writing
from tests import postgres
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.needs("postgresql")


@pytest.fixture
def store(
    postgres_server: postgres.Server, migrated_template: str, request: pytest.FixtureRequest
) -> Iterator[sa.Engine]:
    name = f"parts{abs(hash(request.node.name))}"
    engine = create_engine(postgres_server.create_database(name, template=migrated_template))
    yield engine
    engine.dispose()
    postgres_server.drop_database(name)


def numbers(engine: sa.Engine) -> set[int]:
    """Those of the partitions that all tables have."""
    found = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent::regclass::text = '{}'"
    with engine.connect() as connection:
        of_tables = [
            {int(one.rpartition("_")[2]) for one in connection.exec_driver_sql(found.format(table)).scalars()}
            for table in partitions.LARGE_COLUMNS
        ]
    assert of_tables[0] == of_tables[1] == of_tables[2]
    return of_tables[0]


def add_runs(engine: sa.Engine, *pks: int) -> None:
    """Register runs with these keys."""
    for pk in pks:
        with writing(engine) as session:
            add_run(session, f"r{pk}", pk=pk)


def add_block(session: Session, run_pk: int) -> None:
    key = {"run_pk": run_pk, "segment": 0, "first_step": 0}
    session.add(StoredBlock(**key, last_step=0, num_steps=1, times=b"t"))
    session.add(BlockValues(**key, metric=0, values=b"v" * 1000))
    session.flush()


def count(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(BlockValues)) or 0


def test_a_partition_is_made_before_the_first_run_that_needs_it(store: sa.Engine) -> None:
    assert numbers(store) == {0}
    add_runs(store, 49)
    assert numbers(store) == {0}
    add_runs(store, 50)
    assert numbers(store) == {0, 1}
    add_runs(store, 730)
    assert numbers(store) == {0, 1, 7}


def test_a_partition_is_made_while_others_write_and_only_once(store: sa.Engine) -> None:
    """A default partition, for one, would have to be locked and read."""
    add_runs(store, 1)
    makers = [threading.Thread(target=add_runs, args=(store, pk)) for pk in (51, 52)]
    with writing(store) as session:
        add_block(session, 1)
        for maker in makers:
            maker.start()
        for maker in makers:
            maker.join(60)
        assert numbers(store) == {0, 1}
    assert count(store) == 1


def test_an_import_of_the_second_half_of_a_partition_holds_up_no_registration(store: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,loss\n0,1.5\n")
    with store.begin() as connection:
        connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence('runs', 'pk'), 49)")
    with writing(store) as session:
        imports.import_file(session, path=path, now=0.0)
        with writing(store) as other:
            other.execute(sa.text("SET LOCAL lock_timeout = '2s'"))
            assert add_run(other).pk == 51
    assert numbers(store) == {0, 1}


def test_a_partition_that_somebody_dropped_or_detached_is_made_again(store: sa.Engine) -> None:
    add_runs(store, 1)
    with store.begin() as connection:
        connection.exec_driver_sql("DROP TABLE step_blocks_0")
        connection.exec_driver_sql("ALTER TABLE block_values DETACH PARTITION block_values_0")
    with pytest.raises(sa.exc.ProgrammingError, match="no partition"), writing(store) as session:
        add_block(session, 1)
    columns = {"run_pk": 1, "segment": 0, "first_step": list(range(20)), "last_step": 0, "num_steps": 1, "times": b""}
    with pytest.raises(sa.exc.ProgrammingError, match="no partition"), writing(store) as session:
        bulk.insert(session, StoredBlock, columns)  # so many that it is a COPY
    with writing(store) as session:
        partitions.make_for(session, 1)
        add_block(session, 1)
    assert (numbers(store), count(store)) == ({0}, 1)


def test_values_of_a_partition_that_somebody_dropped_are_missed_also_when_it_was_made_again(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(2000))
    with store.begin() as connection:
        connection.exec_driver_sql("DROP TABLE block_values_0")
    assert partitions.missing(store) == [("block_values_0", range(100))]
    for _ in range(2):
        with reading(store) as session, pytest.raises(DamagedBlock, match="the values of loss of run 'r1', segment 0"):
            frames.steps(session, run=run)
        partitions.make_missing(store)
    assert partitions.missing(store) == []


def test_a_check_names_a_partition_that_is_missing(store: sa.Engine) -> None:
    add_runs(store, 1)
    url = store.url.render_as_string(hide_password=False)
    assert CliRunner().invoke(app, ["check", "--url", url]).exit_code == 0
    with store.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE block_values DETACH PARTITION block_values_0")
    found = CliRunner().invoke(app, ["check", "--url", url])
    assert (found.exit_code, found.stderr) == (
        1,
        "db: the partition block_values_0 is missing, which held values of the runs with the keys 0 to 99: attach it "
        "again, or restore the store from a backup\n",
    )


def test_an_upgrade_makes_those_of_the_stored_runs(store: sa.Engine) -> None:
    add_runs(store, 130)
    with store.begin() as connection:
        connection.exec_driver_sql("DROP TABLE step_blocks_1, block_values_1, rollups_1")
    migrate.upgrade(store)
    assert numbers(store) == {0, 1}


def test_an_upgrade_makes_no_partition_that_was_dropped_with_its_last_run(store: sa.Engine) -> None:
    add_runs(store, 1, 101, 201)
    with writing(store) as session:
        commands.delete_run(session, run=session.get_one(Run, 1))
    partitions.compact(store)
    assert numbers(store) == {1, 2}
    migrate.upgrade(store)
    assert numbers(store) == {1, 2}


def test_the_blocks_of_the_last_run_of_a_partition_are_truncated(store: sa.Engine) -> None:
    add_runs(store, 1, 2, 101)
    with writing(store) as session:
        for pk in (1, 2, 101):
            add_block(session, pk)
    before = _file(store)
    with writing(store) as session:
        commands.delete_run(session, run=session.get_one(Run, 1))
    assert (count(store), _file(store)) == (2, before)
    with writing(store) as session:
        commands.delete_run(session, run=session.get_one(Run, 2))
    assert count(store) == 1
    assert _file(store) != before, "a new file, and the old one is gone"


def test_of_a_partition_with_few_runs_left_a_backup_that_has_begun_has_all_rows(store: sa.Engine) -> None:
    add_runs(store, *range(1, 6))
    with writing(store) as session:
        session.execute(sa.update(Run).values(state="finished"))
        for pk in range(1, 6):
            add_block(session, pk)
    with store.connect().execution_options(isolation_level="REPEATABLE READ") as backup:
        assert backup.exec_driver_sql("SELECT count(*) FROM runs").scalar_one() == 5
        with writing(store) as session:
            commands.delete_runs(session, run_pks=[1, 2, 4, 5])
        assert backup.exec_driver_sql("SELECT count(*) FROM block_values").scalar_one() == 5
    with writing(store) as session:
        (left,) = session.scalars(sa.select(BlockValues)).all()
        assert (left.run_pk, left.values) == (3, b"v" * 1000)
        assert session.scalars(sa.select(StoredBlock.run_pk)).all() == [3]


def test_the_blocks_of_the_last_run_of_a_partition_are_deleted_where_somebody_reads_it(store: sa.Engine) -> None:
    add_runs(store, 1)
    with writing(store) as session:
        add_block(session, 1)
    with store.begin() as reader:
        reader.exec_driver_sql("SELECT * FROM block_values")
        with writing(store) as session:
            commands.delete_run(session, run=session.get_one(Run, 1))
    assert count(store) == 0


def test_who_reads_a_partition_does_not_wait_for_another_one_that_is_written_anew(store: sa.Engine) -> None:
    """By the eleventh time PostgreSQL would have a plan of this query for all partitions."""
    add_runs(store, 1, 101)
    newest = "SELECT first_step FROM step_blocks WHERE run_pk = %s AND segment = %s ORDER BY first_step DESC LIMIT 1"
    with store.begin() as writer, store.begin() as reader:
        writer.exec_driver_sql("LOCK TABLE step_blocks_0 IN ACCESS EXCLUSIVE MODE")
        reader.exec_driver_sql("SET LOCAL lock_timeout = 500")
        for _ in range(20):
            assert reader.exec_driver_sql(newest, (101, 0)).all() == []


def _file(engine: sa.Engine, number: int = 0) -> int:
    with engine.connect() as connection:
        file = f"SELECT pg_relation_filenode('block_values_{number}')"
        return int(connection.exec_driver_sql(file).scalar_one())


def test_partitions_without_runs_are_dropped_and_half_empty_ones_rewritten(store: sa.Engine) -> None:
    """All but the newest one, which gets the next runs, and those of running runs."""
    add_runs(store, 1, 101, 102, 201, 301)
    with writing(store) as session:
        session.execute(sa.update(Run).where(Run.pk != 201).values(state="finished"))
        for pk in (102, 201, 301):
            add_block(session, pk)
        filler = sa.text(
            "INSERT INTO block_values (run_pk, segment, metric, first_step, values)"
            " SELECT pk, 0, 1, n, repeat(md5(n::text), 50)::bytea"
            " FROM unnest(ARRAY[101, 201]) pk, generate_series(1, 2000) n"
        )
        session.execute(filler)
    with writing(store) as session:
        session.execute(sa.delete(BlockValues).where(BlockValues.metric == 1))
        commands.delete_runs(session, run_pks=[1, 101])
    size, running = _size(store, 1), _file(store, 2)
    partitions.compact(store)
    assert numbers(store) == {1, 2, 3}
    assert _size(store, 1) < size / 10
    assert _file(store, 2) == running, "only vacuumed, because a run of it is running"
    assert count(store) == 3


def _size(engine: sa.Engine, number: int) -> int:
    with engine.connect() as connection:
        size = f"SELECT pg_total_relation_size('block_values_{number}')"
        return int(connection.exec_driver_sql(size).scalar_one())
