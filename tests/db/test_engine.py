"""Engines of a URL, and sessions whose transactions are whole."""

import re

import pytest
import sqlalchemy as sa

from db import queries
from db.dialects.base import BadDatabaseUrl
from db.engine import create_engine, reading, writing
from tests.db.seed import add_run


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://me:secret@host/store", "mysql is not supported; use sqlite:///"),
        ("nonsense", "is not a database URL; write sqlite:///"),
        ("postgresql://me:secret@host:port/store", "'...@host:port/store' is not a database URL"),
    ],
)
def test_an_unusable_url_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(BadDatabaseUrl, match=re.escape(words)) as error:
        create_engine(url)
    assert "secret" not in str(error.value)


def test_a_block_that_raises_writes_nothing(engine: sa.Engine) -> None:
    try:
        with writing(engine) as session:
            add_run(session)
            raise RuntimeError
    except RuntimeError:
        pass
    with reading(engine) as session:
        assert queries.runs(session) == []
