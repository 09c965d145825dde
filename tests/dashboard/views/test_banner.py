"""A collector that does not answer is named on every page, and its runs are not called silent."""

import time

import pytest
import sqlalchemy as sa

from dashboard.data import collector_watch
from dashboard.data.collector_watch import Outage
from tests.dashboard.app_content import forget, verdict
from tests.dashboard.conftest import OpenPage
from tests.dashboard.seed import seed

pytestmark = pytest.mark.usefixtures("store")


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
