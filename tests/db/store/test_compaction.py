"""After a prune the store is smaller."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from db.store import compaction
from db.store.engine import create_engine, writing


def fill(engine: sa.Engine) -> None:
    with writing(engine) as session:
        session.execute(sa.text("CREATE TABLE filler (text TEXT)"))
        for _ in range(300):
            session.execute(sa.text("INSERT INTO filler VALUES (:text)"), {"text": "x" * 10_000})


def test_the_space_of_deleted_rows_is_returned_and_the_command_says_how_much(engine: sa.Engine) -> None:
    fill(engine)
    before = compaction.num_bytes(engine)
    with writing(engine) as session:
        session.execute(sa.text("DELETE FROM filler"))
    sentence = compaction.compact(engine, before=before)
    assert sentence.startswith("the store takes ")
    assert sentence.endswith("MB less than before")
    if engine.dialect.name == "sqlite":
        assert compaction.num_bytes(engine) < before - 2e6


def test_a_file_of_an_earlier_release_shrinks_when_it_is_rewritten_and_by_itself_from_then_on(
    migrated_file: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store.db"
    shutil.copy(migrated_file, store)
    with closing(sqlite3.connect(store)) as connection:
        connection.executescript("PRAGMA journal_mode=DELETE; PRAGMA auto_vacuum=NONE; VACUUM")
    engine = create_engine(f"sqlite:///{store}")
    fill(engine)
    before = compaction.num_bytes(engine)
    with writing(engine) as session:
        session.execute(sa.text("DELETE FROM filler"))
    assert "are free for later runs (--vacuum makes the file smaller)" in compaction.compact(engine, before=before)
    assert "free for" not in compaction.compact(engine, before=before, rewrite=True)
    small = store.stat().st_size
    assert small < before - 2e6
    with writing(engine) as session:
        session.execute(sa.text("DROP TABLE filler"))
    fill(engine)
    with writing(engine) as session:
        session.execute(sa.text("DELETE FROM filler"))
    compaction.compact(engine, before=before)
    assert store.stat().st_size <= small + 20_000
    engine.dispose()
