"""What all pages share: the run that the URL names, and a store that is empty or cannot be read."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
import streamlit as st

from dashboard.login import Right, Viewer
from dashboard.views import frame, session
from db import queries
from db.models import BlockValues
from db.steps import backlog
from db.steps.archived import reading
from db.steps.archived.places import NOT_MOUNTED
from db.store.engine import writing
from tests.dashboard.app_content import badges, card_facts, metrics
from tests.dashboard.archived import archive_run
from tests.dashboard.conftest import OpenPage
from tests.dashboard.seed import seed

pytestmark = pytest.mark.usefixtures("store")


def test_a_run_that_was_killed_is_silent_and_has_no_time_left(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time() - 3600)
    for app in (open_page(), open_page("run", run="spiky-1")):
        assert "silent since" in badges(app)[0]
        assert "Time left" not in metrics(app)


def test_the_run_page_without_a_run_shows_the_first_one_and_names_it_in_the_url(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time())
    app = open_page("run")
    assert app.header[0].value == r"gpt\-small / stdlib bytes"
    assert app.query_params["run"] == "spiky-1"


def test_a_page_that_refreshes_itself_shows_nothing_more_once_the_login_has_expired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Rerun(Exception):
        pass

    def rerun() -> None:
        raise Rerun

    refreshes: list[Callable[[], None]] = []
    monkeypatch.setattr(st, "fragment", lambda show, run_every: lambda: refreshes.append(show))
    monkeypatch.setattr(st, "rerun", rerun)
    monkeypatch.setattr(session, "has_login", lambda: True)
    expires_at, shown = [time.time() + 60], []
    monkeypatch.setattr(session, "viewer", lambda: Viewer("Ada", frozenset({Right.READ}), expires_at[0]))
    frame.show_live(lambda: shown.append("runs"), refresh_seconds=1.0)
    (refresh,) = refreshes
    refresh()
    expires_at[0] = time.time() - 1
    with pytest.raises(Rerun):
        refresh()
    assert shown == ["runs"]


def test_an_unknown_run_is_named(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("run", run="nobody")
    assert not app.exception
    assert app.warning[0].value == "There is no run nobody in this store."


@pytest.mark.parametrize("page", ["run", "lab"])
def test_a_run_id_in_the_url_is_never_rendered_as_markup(open_page: OpenPage, store: sa.Engine, page: str) -> None:
    seed(store, now=time.time())
    app = open_page(page, run="x`\n\n[click](http://evil.example)")
    shown = r"There is no run x\` \[click\]\(http\:" "\u2060" r"//evil.example\) in this store."
    assert shown in app.warning[0].value


def test_a_run_with_a_damaged_block_of_steps_says_so_instead_of_its_charts(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time())
    with writing(store) as session:
        backlog.pack_last_rows(session, run=queries.runs(session)[0])
        session.execute(sa.update(BlockValues).values(values=b"\x01cut"))
    app = open_page("run", run="spiky-1")
    assert not app.exception
    assert (
        "The store is damaged: a block of run 'spiky-1', segment 1, steps 300 to 799, is damaged"
        in app.warning[0].value
    )
    assert app.warning[0].value.endswith("; restore the store from a backup, or delete the run.")


@pytest.mark.parametrize(("page", "outlook"), [("run", "This page updates when the file"), ("lab", "Reload the page")])
def test_a_run_whose_archive_is_away_shows_what_can_be_read_and_says_what_becomes_of_the_rest(
    open_page: OpenPage, store: sa.Engine, tmp_path: Path, page: str, outlook: str
) -> None:
    archive_run(store, "r1", tmp_path / "place")
    shutil.move(tmp_path / "place", tmp_path / "away")
    reading.forget_contents()
    app = open_page(page, run="r1")
    assert not app.exception
    warnings = [each.value for each in app.warning if each.icon == ":material/cloud_off:"]
    assert all(f"{NOT_MOUNTED}. {outlook}" in each for each in warnings)
    assert warnings
    assert page == "lab" or {"Last report", "Interventions"} <= metrics(app).keys()


@pytest.mark.parametrize("page", ["runs", "run"])
def test_a_database_without_tables_is_explained_and_the_page_recovers_when_they_exist(
    open_page: OpenPage, store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    full = str(store.url)
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", f"sqlite:///{tmp_path}/empty.db")
    app = open_page(page)
    assert not app.exception
    assert "has no tables yet" in app.warning[0].value
    seed(store, now=time.time())
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", full)
    st.cache_resource.clear()
    app.run()
    assert (metrics(app) | card_facts(app))["Steps of 1,200"] == "800"


@pytest.mark.parametrize("page", ["runs", "run", "compare"])
def test_an_unreachable_database_is_explained_without_its_password(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", "postgresql://lossguard:secret@127.0.0.1:1/lossguard")
    app = open_page(page)
    assert not app.exception
    assert "cannot be reached" in app.warning[0].value
    assert "secret" not in app.warning[0].value


def test_the_run_page_of_an_empty_store_says_so(open_page: OpenPage) -> None:
    app = open_page("run")
    assert not app.exception
    assert app.info[0].value == "No runs yet."
