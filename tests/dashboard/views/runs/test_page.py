"""The list of runs: cards, order and filters."""

import time

import pytest
import sqlalchemy as sa

from db import commands, queries
from db.engine import writing
from lossguard.states import RunState
from tests.dashboard.app_content import metrics
from tests.dashboard.conftest import OpenPage
from tests.dashboard.seed import seed
from tests.db.seed import spoil

pytestmark = pytest.mark.usefixtures("store")


def test_the_list_of_an_empty_store_shows_how_to_start_a_run(open_page: OpenPage) -> None:
    app = open_page()
    assert not app.exception
    assert app.subheader[0].value == "No runs yet"
    assert "python -m monitor serve" in app.markdown[0].value


def test_a_card_shows_loss_progress_incidents_and_the_age_of_the_last_report(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time() - 90)
    app = open_page()
    shown = metrics(app)
    assert shown["Steps of 1,200"] == "800"
    assert (shown["Open incidents"], shown["Interventions"]) == ("0", "1")
    assert shown["Last report"].startswith("1 min 3")
    assert float(shown["Loss"]) == pytest.approx(2.1, abs=0.2)


def test_runs_that_need_a_person_come_first(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, run_id="held", state=RunState.INTERRUPTED, now=time.time() - 1000)
    seed(store, run_id="newer", now=time.time())
    with writing(store) as session:
        run = queries.run_named(session, run_id="held")
        assert run is not None
        commands.save_intervention(
            session, run=run, number=2, now=1.0, incident=1, kind="hold", state="proposed", attempt=1,
            rewind_to=None, skip_from=None, skip_to=None, lr_scale=None, details={},
        )  # fmt: skip
    app = open_page()
    assert [caption.value.split(" ")[0] for caption in app.caption] == ["held", "newer"]
    labels = [link.proto.label for link in app.get("page_link")]
    assert ["needs a person" in label for label in labels] == [False, True, False]


def test_the_list_is_filtered_by_its_url(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    seed(store, run_id="done-1", state=RunState.FINISHED, now=time.time() - 86400)
    assert [caption.value.split(" ")[0] for caption in open_page(state="finished").caption] == [r"done\-1"]
    assert open_page(find="nobody").info[0].value == "No run matches these filters."


def test_a_run_that_was_imported_unchecked_does_not_hide_the_others(open_page: OpenPage, store: sa.Engine) -> None:
    """Its configuration was a list and its times were beyond every calendar: the page showed an error alone."""
    seed(store, run_id="bad-1", now=time.time())
    seed(store, run_id="good-1", now=time.time())
    spoil(store, "bad-1")
    for query in ({}, {"sort": "by name"}, {"state": "running"}):
        app = open_page(**query)
        assert not app.exception
        assert r"good\-1" in [caption.value.split(" ")[0] for caption in app.caption]
    assert not open_page("run", run="bad-1").exception
