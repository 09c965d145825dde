"""What needs a person, on the Run page: with its grounds, its cost, its buttons, and a link to the incident."""

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from streamlit.testing.v1 import AppTest

from dashboard.data import collector_watch, incident_window
from dashboard.data.collector_watch import Outage
from dashboard.data.facts import RunFacts
from dashboard.data.store import StepsDamaged
from dashboard.views import operate
from db import commands
from db.lineage import StepRange
from db.models import Incident, Intervention, Run
from db.store.engine import reading, writing
from lossguard.vocabulary.protocol import CAN_ROLL_BACK, CANNOT_SKIP
from lossguard.vocabulary.states import IncidentState, InterventionState, RunState
from tests.dashboard import live
from tests.dashboard.app_content import column, figure, forget, incident_rows, metrics, names, verdict
from tests.dashboard.conftest import OpenPage
from tests.dashboard.live import SPIKE, report_a_spike
from tests.dashboard.seed import save_incident, stored

pytestmark = pytest.mark.usefixtures("store")
SKIPPED = "batches skipped by a rollback"


def text(app: AppTest) -> str:
    assert not app.exception
    return " ".join(each.value for each in [*app.warning, *app.caption, *app.markdown])


def buttons(app: AppTest) -> list[str]:
    return [each.label for each in app.button]


def primary(app: AppTest) -> list[str]:
    return [each.label for each in app.button if each.proto.type == "primary"]


def links(app: AppTest) -> list[str]:
    return [each.proto.label for each in app.get("page_link")]


@pytest.fixture
def asking(store: sa.Engine) -> sa.Engine:
    report_a_spike(store)
    return store


def hold(engine: sa.Engine) -> None:
    """A rollback recurred, and the policy holds the run."""
    held: dict[str, Any] = {"kind": "hold", "state": "applied", "attempt": 2, "incident": 1}
    with writing(engine) as session:
        run = stored(session, "asking")
        session.execute(sa.update(Intervention).values(state=InterventionState.RECURRED))
        details = {"reasons": ["Two *attempts* failed."]}
        commands.save_intervention(session, run=run, number=2, now=time.time() - 300, details=details, **held)


def test_a_proposal_can_be_decided_on_the_run_page_which_says_what_it_costs_and_how_long_it_has_waited(
    open_page: OpenPage, asking: sa.Engine
) -> None:
    app = open_page("run", run="asking")
    assert "Intervention 1 is waiting for approval." in text(app)
    assert "It has waited for " in text(app)
    assert "Approving it discards 70 steps" in text(app)
    assert {"Approve", "Reject"} <= set(buttons(app))
    assert ["Open incident 1" in links(app), any("needs a person" in each for each in links(app))] == [True, True]
    marks = {"as it happened", "expected band", "checkpoint of step 600", SKIPPED}
    drawn = names(figure(app))
    assert marks <= drawn
    assert {re.sub(r"\d+", "N", name) for name in drawn} >= {
        "roll back: costs about N steps",
        "wait: costs about N steps",
    }
    assert (primary(app), [each.label for each in app.expander]) == (["Approve"], ["Candidates"])
    (approve,) = [each for each in app.button if each.label == "Approve"]
    opened = approve.click().run()
    assert opened.text_input(key="confirm-word").label == 'To confirm, type "approve"'


def test_a_hold_says_on_what_grounds_and_what_a_person_can_do(open_page: OpenPage, asking: sa.Engine) -> None:
    hold(asking)
    app = open_page("run", run="asking")
    shown = text(app)
    assert re.fullmatch(r"HELD for 5\.\d min: waits for you", verdict(app))
    assert "Time left" not in metrics(app)
    assert incident_rows(app)[0]["outcome"] == "held"
    assert "on hold until an operator decides. It has waited for 5 min" in shown
    assert r"Two \*attempts\* failed." in shown
    for option in ("Release", "Roll back manually", "Lower the learning rate", "Stop the run"):
        assert f"**{option}**" in shown
    assert {"Release", "Roll back manually"} <= set(buttons(app))
    assert primary(app) == ["Roll back manually"], "a run that has diverged is not released"
    assert {"release: the loss goes on as it is", "checkpoint of step 500", SKIPPED} <= names(figure(app))
    assert "Open incident 1" in links(app)
    with writing(asking) as session:
        session.execute(sa.update(Incident).values(state=IncidentState.CLOSED))
        session.execute(sa.update(Run).values(capabilities=[CAN_ROLL_BACK, CANNOT_SKIP]))
    forget()
    app = open_page("run", run="asking")
    assert primary(app) == ["Release"]
    assert SKIPPED not in names(figure(app))


def test_the_page_of_a_held_run_reads_its_batches_once_and_offers_its_buttons_also_without_them(
    open_page: OpenPage, asking: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(asking)
    steps, read = [], incident_window.read_batch

    def counted(session: Session, facts: RunFacts, step: int, line: Sequence[StepRange]) -> int:
        steps.append(step)
        return read(session, facts, step, line)

    monkeypatch.setattr(incident_window, "read_batch", counted)
    open_page("run", run="asking")
    assert (known := list(steps))
    open_page("run", run="asking")
    assert steps == known

    def damaged(*_asked: object) -> int:
        raise StepsDamaged("A block of steps is damaged.")

    monkeypatch.setattr(incident_window, "read_batch", damaged)
    forget()
    assert {"Release", "Roll back manually"} <= set(buttons(open_page("run", run="asking")))


def test_on_the_page_of_another_incident_a_held_run_is_rolled_back_for_the_incident_of_its_hold(
    open_page: OpenPage, asking: sa.Engine
) -> None:
    hold(asking)
    with writing(asking) as session:
        early: dict[str, Any] = {"onset_step": 200, "detected_step": 207, "state": IncidentState.CLOSED}
        save_incident(session, stored(session, "asking"), 2, now=time.time(), **early)
    app = open_page("incident", run="asking", incident="2").button(key="manual-rollback").click().run()
    assert (app.selectbox(key="rewind-step").value, app.number_input(key="skip-batches-500").value) == (500, 200)


def test_a_dialog_that_was_opened_for_one_incident_or_hold_says_that_it_is_over(
    open_page: OpenPage, asking: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Callable[[], str | None]] = []
    monkeypatch.setattr(operate, "confirm", lambda action, obsolete: opened.append(obsolete))
    open_page("incident", run="asking").button(key="accept-level").click().run()
    hold(asking)
    forget()
    open_page("run", run="asking").button(key="release").click().run()
    assert [each() for each in opened] == [None, None]
    with writing(asking) as session:
        session.execute(sa.update(Incident).values(state=IncidentState.CLOSED))
        session.execute(sa.update(Intervention).values(state=InterventionState.RELEASED))
        run, held = stored(session, "asking"), {"kind": "hold", "state": "applied", "attempt": 1, "incident": 1}
        commands.save_intervention(session, run=run, number=3, now=time.time(), details={}, **held)
    forget()
    assert [each() for each in opened] == [
        "Incident 1 is not open any more. Nothing was changed here.",
        "This hold is over. Intervention 3 holds the run now.",
    ]


def test_the_picture_of_a_rollback_with_a_remedy_says_what_that_costs(open_page: OpenPage, asking: sa.Engine) -> None:
    same = {"arm": "rewind_with_remedy", "rewind_to": 600}
    costs = {None: 90.0, "clip": 7.0, "z_loss": 3.0}
    choices = [{**same, "remedy": remedy, "cost": cost} for remedy, cost in costs.items()]
    with writing(asking) as session:
        session.execute(sa.update(Intervention).values(details={"choices": choices}, remedies=["clip"]))
    assert "roll back: costs about 7 steps" in names(figure(open_page("run", run="asking")))


@pytest.mark.usefixtures("asking")
def test_the_picture_of_a_long_decision_reaches_to_the_newest_step(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incident_window, "MAX_WINDOW_STEPS", 60)
    drawing = figure(open_page("run", run="asking"))
    steps = column(next(trace["x"] for trace in drawing["data"] if trace["name"] == "as it happened"))
    assert (steps[0], steps[-1]) == (SPIKE + 30 - 60, SPIKE + 29)


def test_the_picture_of_a_hold_marks_the_steps_to_skip_where_batches_were_skipped_before(
    open_page: OpenPage, store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def curve(steps: int) -> dict[str, Any]:
        at = np.arange(float(steps))
        return as_usual(steps) | {"batch_index": np.where(at < 550, at, at + 400)}

    as_usual = live.curve
    monkeypatch.setattr(live, "curve", curve)
    report_a_spike(store)
    hold(store)
    (marked,) = [each for each in figure(open_page("run", run="asking"))["data"] if each["name"] == SKIPPED]
    with reading(store) as session:
        detected_step = session.execute(sa.select(Incident.detected_step)).scalar_one()
    assert (min(marked["x"]), max(marked["x"])) == (500, detected_step + 1)


def test_nothing_can_be_decided_while_the_collector_does_not_answer(
    open_page: OpenPage, asking: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(collector_watch, "outage", lambda: Outage(time.time(), "the connection is refused"))
    for page in ("run", "incident"):
        app = open_page(page, run="asking")
        assert [app.button(key=key).disabled for key in ("approve", "reject")] == [True, True]
    hold(asking)
    forget()
    app = open_page("run", run="asking")
    assert [app.button(key=key).disabled for key in ("release", "manual-rollback")] == [True, True]


@pytest.mark.usefixtures("asking")
def test_a_run_is_renamed_without_a_typed_word(open_page: OpenPage) -> None:
    opened = open_page("run", run="asking").button(key="edit-run").click().run()
    assert opened.text_input(key="edit-name").value == "asking"
    assert [each.label for each in opened.text_input if each.key == "confirm-word"] == []


def test_an_incident_that_was_open_when_the_run_ended_is_a_persons(open_page: OpenPage, asking: sa.Engine) -> None:
    with writing(asking) as session:
        run = stored(session, "asking")
        commands.finish_run(session, run=run, state=RunState.INTERRUPTED, at=time.time(), now=time.time())
        session.execute(sa.update(Intervention).values(state=InterventionState.WITHDRAWN))
    app = open_page("run", run="asking")
    assert r"Incident 1 \(divergence\) was still open when the run ended." in text(app)
    assert "Approve" not in buttons(app)


def test_without_a_collectors_address_a_live_run_says_that_nothing_can_be_decided(
    open_page: OpenPage, asking: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOSSGUARD_URL", raising=False)
    monkeypatch.setattr(collector_watch, "outage", lambda: Outage(time.time(), "the connection is refused"))
    app = open_page("run", run="asking")
    assert "No collector answers at `http://127.0.0.1:8000`, the default address" in text(app)
    assert not app.error
