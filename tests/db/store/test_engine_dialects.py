"""What differs between databases is behind one interface, and a URL names which one it is."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from db.dialects.base import Dialect
from db.store.engine import DIALECTS, dialect_of, parse_url


def test_an_engine_belongs_to_the_dialect_of_its_url(engine: sa.Engine) -> None:
    dialect, _ = parse_url(engine.url.render_as_string(hide_password=False))
    assert dialect_of(engine) is dialect
    with engine.connect() as connection:
        assert dialect_of(connection) is dialect


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
def test_the_example_of_a_url_is_one_of_its_dialect(dialect: Dialect) -> None:
    assert parse_url(dialect.url_example)[0] is dialect


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///some/store.db", Path("some/store.db")),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql://me@host/store", None),
    ],
)
def test_the_file_of_a_store_is_known_before_it_exists(url: str, file: Path | None) -> None:
    dialect, parsed = parse_url(url)
    assert dialect.store_file(parsed) == file
