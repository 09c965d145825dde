"""A collector that does not answer is named on every page, and its runs are not called silent."""

import time

import pytest
import sqlalchemy as sa

from dashboard.data import collector_watch
from dashboard.data.collector_watch import Outage
from tests.dashboard.app_content import badges
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
        assert "no news since" in badges(app)[0]
    monkeypatch.setattr(collector_watch, "outage", lambda: None)
    app.run()
    assert not app.error
    if page == "run":
        assert "silent since" in badges(app)[0]


def test_without_an_address_no_page_asks_for_a_collector_that_may_be_elsewhere(
    open_page: OpenPage, store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(store, now=time.time() - 3600)
    monkeypatch.delenv("LOSSGUARD_URL", raising=False)
    monkeypatch.setattr(collector_watch, "outage", lambda: Outage(time.time(), "the connection is refused"))
    assert not open_page("runs").error
