"""What all pages share: the run that the URL names, a store that cannot be read, a collector that does not answer."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard.data import collector_watch
from dashboard.data.collector_watch import Outage
from dashboard.login import Right, Viewer
from dashboard.views import frame
from db import queries
from db.models import BlockValues
from db.steps import backlog
from db.steps.archived.places import NOT_MOUNTED
from db.store.engine import writing
from tests.dashboard.app_content import forget, metrics, verdict
from tests.dashboard.conftest import OpenPage
from tests.dashboard.seed import archive_run, seed
from tests.db.archive.stored import forget_contents
from tests.db.seed import contents, make_pre_release

pytestmark = pytest.mark.usefixtures("store")


def test_a_run_that_was_killed_is_not_watched_and_has_no_time_left(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time() - 3600)
    for app in (open_page(), open_page("run")):
        assert verdict(app).startswith("Not watched: no report for 1.0 h; the process was killed, or cannot reach")
        assert "Time left" not in metrics(app)
    assert app.header[0].value == r"gpt\-small / stdlib bytes"
    assert app.query_params["run"] == "spiky-1", "without a run in the URL the first one is shown"


def test_a_dialog_says_that_the_store_cannot_be_read() -> None:
    def script() -> None:
        from dashboard.data.store import StoreUnavailable
        from dashboard.views import frame

        @frame.dialog("Roll back?")
        def contents() -> None:
            raise StoreUnavailable("It is away.")

        contents()

    app = AppTest.from_function(script, default_timeout=120).run()
    assert not app.exception
    assert [each.value for each in app.warning] == ["It is away. Reload the page to try again."]


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
    monkeypatch.setattr(frame, "has_login", lambda: True)
    expires_at, shown = [time.time() + 60], []
    monkeypatch.setattr(frame, "viewer", lambda: Viewer("Ada", frozenset({Right.READ}), expires_at[0]))
    frame.show_live(lambda: shown.append("runs"), refresh_seconds=1.0)
    (refresh,) = refreshes
    refresh()
    expires_at[0] = time.time() - 1
    with pytest.raises(Rerun):
        refresh()
    assert shown == ["runs"]


@pytest.mark.usefixtures("spiky")
def test_another_run_is_shown_without_the_steps_values_and_incident_of_the_one_before(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, run_id="two", now=time.time())
    app = open_page("run", run="spiky-1", steps="400-430", y="loss:1..2", incident="1", smooth="30 steps")
    app.session_state["other-runs"] = True  # as when the popover is open
    app.run().selectbox(key="other-run").set_value("two").run()
    assert not app.exception
    assert {name: app.query_params[name] for name in app.query_params} == {"run": "two", "smooth": "30 steps"}


@pytest.mark.parametrize("page", ["run", "lab"])
@pytest.mark.usefixtures("spiky")
def test_an_unknown_run_in_the_url_is_named_and_never_rendered_as_markup(open_page: OpenPage, page: str) -> None:
    app = open_page(page, run="x`\n\n[click](http://evil.example)")
    shown = r"There is no run x\` \[click\]\(http\:" "\u2060" r"//evil.example\) in this store."
    assert not app.exception
    assert shown in app.warning[0].value


def test_a_run_with_a_damaged_block_of_steps_says_so_instead_of_its_charts(
    open_page: OpenPage, spiky: sa.Engine
) -> None:
    with writing(spiky) as session:
        backlog.pack_last_rows(session, run=queries.runs(session)[0])
        session.execute(sa.update(BlockValues).values(values=b"\x01cut"))
    app = open_page("run", run="spiky-1")
    assert not app.exception
    (warning,) = [each.value for each in app.warning][:1]
    assert "The store is damaged: a block of run 'spiky-1', segment 1, steps 300 to 799, is damaged" in warning
    assert warning.endswith("; restore the store from a backup, or delete the run.")


@pytest.mark.parametrize(("page", "outlook"), [("run", "This page updates when the file"), ("lab", "Reload the page")])
def test_a_run_whose_archive_is_away_shows_what_can_be_read_and_says_what_becomes_of_the_rest(
    open_page: OpenPage, store: sa.Engine, tmp_path: Path, page: str, outlook: str
) -> None:
    archive_run(store, "r1", tmp_path / "place")
    shutil.move(tmp_path / "place", tmp_path / "away")
    forget_contents()
    app = open_page(page, run="r1")
    assert not app.exception
    warnings = [each.value for each in app.warning if each.icon == ":material/cloud_off:"]
    assert all(f"{NOT_MOUNTED}. {outlook}" in each for each in warnings)
    assert warnings
    assert page == "lab" or {"Last report", "Interventions"} <= metrics(app).keys()


def test_a_store_of_a_pre_release_is_explained_and_left_untouched(open_page: OpenPage, store: sa.Engine) -> None:
    make_pre_release(store, "0027")
    before = contents(store)
    for page in ("runs", "run", "compare"):
        app = open_page(page)
        assert not app.exception
        assert "A pre-release of Lossguard wrote this store (schema 0027)" in app.warning[0].value
    assert contents(store) == before


@pytest.mark.usefixtures("spiky")
def test_a_page_says_that_all_connections_to_the_database_are_in_use(
    open_page: OpenPage, store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sa.create_engine(store.url, poolclass=sa.QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.1)
    monkeypatch.setattr("dashboard.data.store._engine", lambda url: full)
    with full.connect():
        app = open_page("run")
        assert not app.exception
        assert app.warning[0].value.startswith("All connections of the dashboard to the database are in use.")
    full.dispose()


def test_a_database_that_cannot_be_read_is_explained_without_its_password_until_it_can(
    open_page: OpenPage, spiky: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = str(spiky.url)
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", f"sqlite:///{tmp_path}/empty.db")
    app = open_page("run")
    assert "has no tables yet" in app.warning[0].value
    st.cache_resource.clear()
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", "postgresql://lossguard:secret@127.0.0.1:1/lossguard")
    for page in ("runs", "run", "compare"):
        unreachable = open_page(page)
        assert not unreachable.exception
        assert "cannot be reached" in unreachable.warning[0].value
        assert "secret" not in unreachable.warning[0].value
    st.cache_resource.clear()
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", full)
    app.run()
    assert metrics(app)["Steps of 1,200"] == "800"


@pytest.mark.parametrize("page", ["runs", "run", "trainer_lab"])
def test_every_page_says_that_the_collector_does_not_answer_until_it_does(
    open_page: OpenPage, store: sa.Engine, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    seed(store, now=time.time() - 3600)
    monkeypatch.setenv("LOSSGUARD_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(collector_watch, "outage", lambda: Outage(time.time(), "the connection is refused"))
    app = open_page(page)
    assert not app.exception
    (error,) = app.error
    assert "The collector at `http://127.0.0.1:9` has not answered since" in error.value
    if page == "run":
        assert verdict(app) == "Not watched: the collector is down, no spike is caught meanwhile"
    monkeypatch.setattr(collector_watch, "outage", lambda: None)
    forget()
    app.run()
    assert not app.error
    if page == "run":
        assert verdict(app).startswith("Not watched: no report for 1.0 h")


@pytest.mark.usefixtures("spiky")
def test_after_a_link_that_names_no_run_a_page_shows_the_first_one(open_page: OpenPage) -> None:
    app = open_page("lab", run="")
    del app.query_params["run"]
    app.run()
    assert app.query_params["run"] == "spiky-1"
