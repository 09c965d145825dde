"""Steps are stored on both databases."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.store.engine import writing


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    """A transaction that writes to a store, once on SQLite and once on PostgreSQL."""
    with writing(engine) as session:
        yield session
