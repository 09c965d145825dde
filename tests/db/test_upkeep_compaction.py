"""After a prune the store is smaller."""

import sqlalchemy as sa

from db import upkeep
from db.store.engine import writing


def fill(engine: sa.Engine) -> None:
    with writing(engine) as session:
        session.execute(sa.text("CREATE TABLE filler (text TEXT)"))
        for _ in range(300):
            session.execute(sa.text("INSERT INTO filler VALUES (:text)"), {"text": "x" * 10_000})


def test_the_space_of_deleted_rows_is_returned_and_the_command_says_how_much(engine: sa.Engine) -> None:
    fill(engine)
    before = upkeep.num_bytes(engine)
    with writing(engine) as session:
        session.execute(sa.text("DELETE FROM filler"))
    sentence = upkeep.compact(engine, before=before)
    assert sentence.startswith("the store takes ")
    assert sentence.endswith("MB less than before")
    if engine.dialect.name == "sqlite":
        assert upkeep.num_bytes(engine) < before - 2e6
