"""The page Scorecard."""

import time

import pytest
import sqlalchemy as sa

from db.store.engine import writing
from lossguard.vocabulary.states import RunState
from tests.dashboard.app_content import metrics
from tests.dashboard.conftest import OpenPage
from tests.monitor.scorecard import store_run

pytestmark = pytest.mark.usefixtures("store")


def test_the_page_shows_the_sentence_the_rate_and_the_sites_of_the_run_in_the_url(
    open_page: OpenPage, store: sa.Engine
) -> None:
    with writing(store) as session:
        store_run(session, "first", policy={"mode": "observe"})
        store_run(session, "second", project="llama", capabilities=[], state=RunState.FAILED, end_step=None)
    app = open_page("scorecard", run="second")
    shown = metrics(app)
    assert "rolled back 2 times in 2 runs" in app.info[0].value
    assert (shown["Actions, and it came back by itself"], shown["Sites where people agreed"]) == ("1 of 2", "0 of 1")
    sites = app.dataframe[-1].value
    assert list(sites["What happened"]) == ["the run died"]
    assert (
        open_page("scorecard", project="gpt").dataframe[-1].value["What happened"][0]
        == "recovered by itself, harm not measured"
    )


def test_a_period_leaves_out_runs_that_reported_before_it(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        store_run(session, "old", policy={"mode": "observe"})
        store_run(session, "new", policy={"mode": "observe"}).last_report_at = time.time()
    app = open_page("scorecard", reported="in the last 7 days")
    assert "in 1 run" in app.info[0].value
