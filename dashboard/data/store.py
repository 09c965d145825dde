"""The store behind the pages: one engine for each database URL, and readable errors."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
import streamlit as st
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from db import migrate
from db.cli.command_engine import as_typed_here
from db.runs.pages import SearchTooSlow
from db.steps.archived.reading import UnreadableArchive
from db.steps.codec import DamagedBlock
from db.store.engine import DEFAULT_URL, create_engine, parse_url, pre_release, reading

CACHE_SECONDS = 0.4
"""Adds to the delay of a live page, which follows a report within two seconds."""
ALL_IN_USE = "All connections of the dashboard to the database are in use."

P = ParamSpec("P")
T = TypeVar("T")


class StoreUnavailable(Exception):
    """The store cannot be read now; the message gives the reason and the remedy."""

    outlook = "This page updates when the store answers again."
    """Promise of a page that refreshes itself, after the message."""


class StepsUnreadable(StoreUnavailable):
    """Some steps of one run cannot be read; everything else of the store can."""


class StepsAway(StepsUnreadable):
    """Raised if the steps are in a file outside the store."""

    outlook = "This page updates when the file can be read again."


class StepsDamaged(StepsUnreadable):
    """Raised if a block of steps is damaged, which does not mend by itself."""

    outlook = ""


def database_url() -> str:
    return os.environ.get("LOSSGUARD_DATABASE_URL") or DEFAULT_URL


@contextmanager
def open_store(url: str) -> Iterator[Session]:
    """A read-only session. Raises StoreUnavailable, of which StepsUnreadable is one kind."""
    try:
        with reading(_engine(url)) as session:
            yield session
    except sa.exc.DBAPIError as error:
        raise StoreUnavailable(_why(url, error)) from error
    except sa.exc.TimeoutError as error:
        raise StoreUnavailable(ALL_IN_USE) from error
    except SearchTooSlow as error:
        raise StoreUnavailable(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    except DamagedBlock as error:
        raise StepsDamaged(f"The store is damaged: {error}.") from error
    except UnreadableArchive as error:
        raise StepsAway(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error


def cached_read(
    seconds: float = CACHE_SECONDS, *, max_entries: int = 256
) -> Callable[[Callable[Concatenate[Session, P], T]], Callable[P, T]]:
    """Have a function of a session open the store itself, and keep its results for all viewers.

    They share the object and must not modify it. An argument whose name begins with an underscore is no part of the key
    (Streamlit's convention). The function raises StoreUnavailable.
    """

    def decorate(read: Callable[Concatenate[Session, P], T]) -> Callable[P, T]:
        @st.cache_resource(ttl=seconds, show_spinner=False, max_entries=max_entries)
        @wraps(read)  # by its name and its source Streamlit tells the results of one function from those of another
        def kept(url: str, *args: P.args, **kwargs: P.kwargs) -> T:
            with open_store(url) as session:
                return read(session, *args, **kwargs)

        return lambda *args, **kwargs: kept(database_url(), *args, **kwargs)

    return decorate


@st.cache_resource
def _engine(url: str) -> sa.Engine:
    # A connection per read: a pooled one would keep reading a file that was deleted or replaced.
    is_file = parse_url(url)[0].is_file
    engine = create_engine(url, poolclass=sa.pool.NullPool) if is_file else create_engine(url)
    with engine.connect() as connection:
        reason = pre_release(connection)
    if reason:  # raised, so not cached: the file may be replaced
        engine.dispose()
        raise StoreUnavailable(f"{reason[0].upper()}{reason[1:]}.")
    return engine


def _why(url: str, error: sa.exc.DBAPIError) -> str:
    shown = make_url(url).render_as_string(hide_password=True)
    try:
        current, newest = migrate.revisions(_engine(url))
    except sa.exc.DBAPIError as unreachable:
        return f"The database {shown} cannot be reached: {_first_line(unreachable)}."
    except sa.exc.TimeoutError:
        return ALL_IN_USE
    if current is None:
        return as_typed_here(
            f"The database {shown} has no tables yet. The collector creates them when it starts "
            "(`python -m monitor serve`), and so does `python -m db upgrade`."
        )
    if current != newest:
        return as_typed_here(
            f"The database {shown} is at revision {current}, this version needs {newest}: "
            "run `python -m db upgrade`, or use the dashboard of the collector's version."
        )
    return f"The database {shown} could not be read: {_first_line(error)}."


def _first_line(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0].rstrip(".") if error.orig else type(error).__name__
