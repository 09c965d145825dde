"""A store with a run in it, for tests that need one transaction."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Run
from db.store.engine import writing
from tests.db.seed import add_run


@pytest.fixture
def session(sqlite_engine: sa.Engine) -> Iterator[Session]:
    """A transaction that writes to a store on SQLite."""
    with writing(sqlite_engine) as session:
        yield session


@pytest.fixture
def run(session: Session) -> Run:
    """The run r1 of that store."""
    return add_run(session)
