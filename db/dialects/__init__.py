"""The databases that can hold a store; all that is particular to one of them is in its module.

A further one is a module here with its `Dialect`, an entry in DIALECTS, and its driver in pyproject.toml.
"""

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from db.dialects.base import BadDatabaseUrl, Dialect
from db.dialects.postgresql import PostgreSQL
from db.dialects.sqlite import SQLite

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (SQLite(), PostgreSQL())}


def dialect_of(bind: sa.Engine | sa.Connection) -> Dialect:
    """The dialect of an engine or a connection."""
    return DIALECTS[bind.dialect.name]


def parse_url(url: str) -> tuple[Dialect, sa.URL]:
    """The dialect and the parts of a database URL. Raises BadDatabaseUrl."""
    try:
        parsed = make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # the latter for a port that is not a number
        raise BadDatabaseUrl(f"{shown(url)} is not a database URL; write {_examples()}") from None
    name = parsed.get_backend_name()
    if name not in DIALECTS:
        raise BadDatabaseUrl(f"{name} is not supported; use {_examples()}")
    return DIALECTS[name], parsed


def _examples() -> str:
    return " or ".join(dialect.url_example for dialect in DIALECTS.values())


def shown(url: str) -> str:
    """A database URL as it may be printed: without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except (sa.exc.ArgumentError, ValueError):
        _, at, host = url.rpartition("@")  # where the password of such a text begins cannot be known
        return repr(f"...{at}{host}" if at else url)
