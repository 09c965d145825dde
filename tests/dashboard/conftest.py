"""The app in the test's process, on a store of the test's own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import streamlit as st
from streamlit.testing.v1 import AppTest

from db import migrate
from db.engine import create_engine

APP = Path(__file__).parents[2] / "dashboard" / "app.py"

OpenPage = Callable[..., AppTest]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """The store that the pages read, with tables and no runs; what an earlier test cached is forgotten."""
    url = f"sqlite:///{tmp_path}/lossguard.db"
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", url)
    st.cache_data.clear()
    st.cache_resource.clear()
    engine = create_engine(url)
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def open_page(store: sa.Engine) -> OpenPage:
    """Opens a page of the app as a browser would: `open_page("run", run="r1")`."""

    def opened(page: str = "runs", **query: str) -> AppTest:
        app = AppTest.from_file(APP, default_timeout=30)
        if page != "runs":
            app.run()
            app.switch_page(f"views/{page}/page.py")
        for name, value in query.items():
            app.query_params[name] = value
        return app.run()

    return opened
