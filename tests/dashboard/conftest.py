"""The app in the test's process, on a store of the test's own."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from dashboard import operator_actions
from dashboard.data import collector_watch
from dashboard.views import frame
from tests.dashboard.app_content import forget
from tests.dashboard.seed import seed

APP = Path(__file__).parents[2] / "dashboard" / "app.py"

OpenPage = Callable[..., AppTest]


@pytest.fixture(scope="session", autouse=True)
def _no_components_of_other_packages() -> Iterator[None]:
    """Every AppTest starts a Streamlit that reads the metadata of all installed packages: a third of a test's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", list)
        yield


@pytest.fixture(scope="session", autouse=True)
def _options_as_served() -> None:
    """Those of `python -m dashboard` that cost time: else Streamlit rewrites the scripts and collects all garbage."""
    for option in ("runner.magicEnabled", "runner.postScriptGC"):
        st.config.set_option(option, False)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take its time to answer."""
    monkeypatch.setattr(operator_actions, "TIMEOUT", 120.0)


@pytest.fixture
def store(sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """The store that the pages read, with tables and no runs; what an earlier test cached is forgotten."""
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", str(sqlite_engine.url))
    monkeypatch.setattr(frame, "LOWER_PART_DELAY_SECONDS", 0.0)  # no browser draws the curves meanwhile
    monkeypatch.setattr(collector_watch, "outage", lambda: None)
    forget()
    return sqlite_engine


@pytest.fixture
def spiky(store: sa.Engine) -> sa.Engine:
    """The store with the running run `spiky-1`, which has everything that a page can show."""
    seed(store, now=time.time())
    return store


@pytest.fixture(scope="session")
def registered_pages() -> list[Any]:
    """What an AppTest of this process has learnt about the pages of the app; empty before the first one."""
    return []


@pytest.fixture
def open_page(store: sa.Engine, registered_pages: list[Any]) -> OpenPage:
    """Opens a page of the app as a browser would, without another page before it: `open_page("run", run="r1")`."""

    def opened(page: str = "runs", **query: str | list[str]) -> AppTest:
        app = AppTest.from_file(APP, default_timeout=120)
        if page != "runs":
            if not registered_pages:
                registered_pages.append(AppTest.from_file(APP, default_timeout=120).run()._registered_pages)
            (app._registered_pages,) = registered_pages  # else `switch_page` needs a run of the first page before
            app.switch_page(f"views/{page}/page.py")
        for name, value in query.items():
            app.query_params[name] = value
        return app.run()

    return opened
