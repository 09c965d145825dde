"""What needs a person, on the Run page: with its grounds, its cost, its buttons, and a link to the incident."""

import time

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from dashboard.data import collector_watch
from dashboard.data.collector_watch import Outage
from db import commands, queries
from db.models import Intervention
from db.store.engine import writing
from lossguard.vocabulary.states import InterventionState, RunState
from tests.dashboard.conftest import OpenPage
from tests.dashboard.live import report_a_spike
from tests.dashboard.seed import seed

pytestmark = pytest.mark.usefixtures("store")


def text(app: AppTest) -> str:
    assert not app.exception
    return " ".join(each.value for each in [*app.warning, *app.caption, *app.markdown])


def buttons(app: AppTest) -> list[str]:
    return [each.label for each in app.button]


def links(app: AppTest) -> list[str]:
    return [each.proto.label for each in app.get("page_link")]


@pytest.fixture
def asking(store: sa.Engine) -> sa.Engine:
    report_a_spike(store)
    return store


def hold(engine: sa.Engine) -> None:
    """A rollback recurred, and the policy holds the run."""
    with writing(engine) as session:
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        session.execute(sa.update(Intervention).values(state=InterventionState.RECURRED))
        commands.save_intervention(
            session, run=run, number=2, now=time.time() - 300, incident=1, kind="hold", state="applied", attempt=2,
            rewind_to=None, skip_from=None, skip_to=None, lr_scale=None, 
            details={"reasons": ["Two *attempts* failed."]},
        )  # fmt: skip


def test_a_proposal_can_be_decided_on_the_run_page_which_says_what_it_costs_and_how_long_it_has_waited(
    open_page: OpenPage, asking: sa.Engine
) -> None:
    app = open_page("run", run="asking")
    assert "Intervention 1 is waiting for approval." in text(app)
    assert "It has waited for " in text(app)
    assert "Approving it discards 70 steps" in text(app)
    assert {"Approve", "Reject"} <= set(buttons(app))
    assert ["Open incident 1" in links(app), any("needs a person" in each for each in links(app))] == [True, True]
    (approve,) = [each for each in app.button if each.label == "Approve"]
    opened = approve.click().run()
    assert opened.text_input(key="confirm-word").label == 'To confirm, type "approve"'


def test_a_hold_says_on_what_grounds_and_what_a_person_can_do(open_page: OpenPage, asking: sa.Engine) -> None:
    hold(asking)
    app = open_page("run", run="asking")
    shown = text(app)
    assert "on hold until an operator decides. It has waited for 5 min" in shown
    assert r"Two \*attempts\* failed." in shown
    for option in ("Release", "Roll back manually", "Lower the learning rate", "Stop the run"):
        assert f"**{option}**" in shown
    assert {"Release", "Roll back manually"} <= set(buttons(app))
    assert "Open incident 1" in links(app)


def test_an_incident_that_was_open_when_the_run_ended_is_a_persons(open_page: OpenPage, asking: sa.Engine) -> None:
    with writing(asking) as session:
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        commands.finish_run(session, run=run, state=RunState.INTERRUPTED, at=time.time(), now=time.time())
        session.execute(sa.update(Intervention).values(state=InterventionState.WITHDRAWN))
    app = open_page("run", run="asking")
    assert r"Incident 1 \(divergence\) was still open when the run ended." in text(app)
    assert "Approve" not in buttons(app)


def test_a_quiet_run_asks_for_nothing(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("run", run="spiky-1")
    assert not app.warning
    assert not [each for each in links(app) if "needs a person" in each]


def test_the_incident_page_without_a_number_shows_the_incident_that_waits(
    open_page: OpenPage, asking: sa.Engine
) -> None:
    with writing(asking) as session:
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        commands.save_incident(
            session, run=run, number=2, segment=0, now=time.time(), kind="plateau", state="closed", signal="loss",
            onset_step=650, detected_step=660, peak_step=None, end_step=None, score=1.0, outcome="ongoing", details={},
        )  # fmt: skip
    assert open_page("incident", run="asking").query_params["incident"] == "1"


def test_without_a_collectors_address_a_live_run_says_that_nothing_can_be_decided(
    open_page: OpenPage, asking: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOSSGUARD_URL", raising=False)
    monkeypatch.setattr(collector_watch, "outage", lambda: Outage(time.time(), "the connection is refused"))
    app = open_page("run", run="asking")
    assert "No collector answers at `http://127.0.0.1:8000`, the default address" in text(app)
    assert not app.error
