"""The incident's page: what it shows, and what a person can do there."""

import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import default_span, read_incident_window
from dashboard.data.store import FRESH_SECONDS
from dashboard.operator_actions import Deed
from dashboard.views.incident.actions import approval, rejection, wish
from db import access, commands, queries
from db.engine import reading, writing
from lossguard.states import RunState
from tests.dashboard.conftest import OpenPage
from tests.dashboard.live import SPIKE, report_a_spike
from tests.dashboard.seed import LEFT, REWIND, seed
from tests.dashboard.serving import serving
from tests.dashboard.test_pages import badges, column, figure, metrics, names
from tests.db.seed import add_run

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def asking(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """A run that waits for a person's word, and the collector that it reports to."""
    report_a_spike(store)
    with serving(store) as url:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        monkeypatch.setenv("LOSSGUARD_DASHBOARD_OPERATE", "1")
        yield store


def press(app: AppTest, label: str) -> AppTest:
    (button,) = [each for each in app.button if each.label == label][-1:]
    return button.click().run()


def dialog(deed: Deed, *, reason: bool = False) -> AppTest:
    """What stands in the dialog: a press in one that is open reruns it alone, which AppTest cannot do."""

    def script(deed: object, reason: bool) -> None:
        from dashboard.views import operate

        operate.ask(deed, reason=reason)  # type: ignore[arg-type]

    return AppTest.from_function(script, default_timeout=30, kwargs={"deed": deed, "reason": reason}).run()


def stored_facts() -> RunFacts:
    facts = cached.facts("asking")
    assert facts is not None
    return facts


def actions(engine: sa.Engine) -> list[str]:
    """What the audit trail holds, the newest first."""
    with reading(engine) as session:
        return [row.action for row in access.trail(session)]


def test_a_run_without_incidents_says_so(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        add_run(session)
    app = open_page("incident", run="r1")
    assert not app.exception
    assert app.header[0].value == "No incidents"


def test_an_empty_store_and_an_unknown_incident_are_plain_sentences(open_page: OpenPage, store: sa.Engine) -> None:
    assert open_page("incident").info[0].value == "No runs yet."
    seed(store, now=time.time())
    app = open_page("incident", run="spiky-1", incident="7")
    assert not app.exception
    assert app.warning[0].value == "This run has no incident 7; here is the newest."
    assert app.query_params["incident"] == "1"


def test_the_page_tells_the_incident_in_numbers(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("incident", run="spiky-1", incident="1")
    shown = metrics(app)
    assert shown["Expected"] == "2.28 ± 0.03"
    assert shown["Detected after"] == "4 steps"
    assert (shown["Batches skipped"], shown["Steps given up"]) == ("200", str(LEFT - REWIND))
    assert any("verified" in badge for badge in badges(app))
    told = " ".join(markdown.value for markdown in app.markdown)
    moments = ("Precursor", "Detected", "Peak", "Rollback decided", "Order applied", "Verified", "Closed")
    assert [told.index(f"**{moment}**") for moment in moments] == sorted(
        told.index(f"**{moment}**") for moment in moments
    )


def test_every_step_around_it_is_drawn_with_its_band_and_the_line_that_took_its_place(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time())
    drawing = figure(open_page("incident", run="spiky-1", incident="1"))
    assert {"as it happened", "after the rollback", "expected band", "score of loss", "alarm"} <= names(drawing)
    original = next(trace for trace in drawing["data"] if trace["name"] == "as it happened")
    x = column(original["x"])
    assert x == [*range(int(x[0]), LEFT)]
    after = next(trace for trace in drawing["data"] if trace["name"] == "after the rollback")
    assert column(after["x"])[0] == REWIND


def test_a_link_with_steps_shows_these_steps(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    drawing = figure(open_page("incident", run="spiky-1", incident="1", steps="400-430"))
    assert list(drawing["layout"]["xaxis"]["range"]) == [400, 430]


def test_the_band_is_the_one_that_the_collector_judged_by(store: sa.Engine) -> None:
    report_a_spike(store)
    facts = stored_facts()
    (incident,) = facts.incidents
    seen = read_incident_window(facts, incident)
    first = int(seen.original.steps[0])
    with reading(store) as session:  # a state was kept, so that only some rows had to be read again
        assert queries.snapshot_before(session, run=facts.run, step=first) is not None
    band, at = seen.bands["grad_norm"], incident.detected_step - first
    assert f"expected {band.expected[at]:.5g} \u00b1" in incident.details["reasons"][0]
    assert default_span(facts, incident)[2]


def test_a_verdict_of_a_replay_is_told(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    arm = {"state": "same", "batches": "same", "checkpoint": 300, "reproduced": True, "worst": "NaN", "expected": 2.2}
    verdict = {
        "cause": "data",
        "sentence": "The data do it.",
        "culprits": [{"batch_from": 409, "batch_to": 412}],
        "evidence": {"arms": [arm]},
    }
    with writing(store) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        queries.incidents(session, run=run)[0].verdict = verdict
    app = open_page("incident", run="spiky-1", incident="1")
    assert not app.exception
    assert "**The data do it.**" in [markdown.value for markdown in app.markdown]
    assert app.dataframe[-1].value["Worst"].tolist() == ["NaN"]


@pytest.mark.parametrize("verb", ["Approve", "Reject"])
def test_a_press_asks_first_and_does_nothing_yet(open_page: OpenPage, asking: sa.Engine, verb: str) -> None:
    app = press(open_page("incident", run="asking"), verb)
    assert f"{verb} intervention 1?" in " ".join(markdown.value for markdown in app.markdown)
    assert actions(asking) == ["policy"]


@pytest.mark.parametrize(("verb", "state"), [("Approve", "ordered"), ("Reject", "rejected")])
def test_the_second_press_decides_and_the_audit_trail_says_so(asking: sa.Engine, verb: str, state: str) -> None:
    facts = stored_facts()
    deed = (approval if verb == "Approve" else rejection)(facts.interventions[0])
    assert not press(dialog(deed), verb).exception
    assert actions(asking)[0] == verb.lower()
    with reading(asking) as session:
        assert queries.interventions(session, run=facts.run)[0].state == state


def test_a_decision_that_came_first_is_told(asking: sa.Engine) -> None:
    (waiting,) = stored_facts().interventions
    press(dialog(rejection(waiting)), "Reject")
    late = press(dialog(approval(waiting)), "Approve")
    assert not late.exception
    assert "Too late or not possible now: intervention 1 is not active." in late.error[0].value


def test_the_dialog_of_a_rollback_by_hand_begins_with_the_policys_own_depth(
    open_page: OpenPage, asking: sa.Engine
) -> None:
    app = press(open_page("incident", run="asking"), "Roll back by hand")
    assert app.selectbox(key="hand-step").value == 500
    assert app.number_input(key="hand-skip").value == 200


def test_a_rollback_by_hand_is_ordered_with_its_reason(asking: sa.Engine) -> None:
    facts = stored_facts()
    deed = wish(facts, 400, 30)
    told = "Go back from step 670 to step 400, skip 30 batches [400, 430). 270 steps of training are given up."
    assert deed.question == told
    app = dialog(deed, reason=True)
    app.text_input(key="confirm-reason").input("the shard is bad")
    press(app, "Roll back")
    with reading(asking) as session:
        order = queries.orders(session, run=facts.run)[-1]
        assert (order.rewind_to, order.skip_from, order.skip_to) == (400, 400, 430)
        assert access.trail(session)[0].details["reason"] == "the shard is bad"


def test_nobody_acts_with_the_dashboards_token_where_it_is_not_lent(
    asking: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_DASHBOARD_OPERATE", "0")
    monkeypatch.setenv("LOSSGUARD_TOKEN", "the dashboard's")
    app = press(dialog(approval(stored_facts().interventions[0])), "Approve")
    assert app.error[0].value == "Enter a token with the scope `operate`."
    assert actions(asking) == ["policy"]
    with writing(asking) as session:
        token = access.create_token(session, name="ada", scopes=[access.Scope.OPERATE], project=None, now=1.0)[1]
    app.text_input(key="token-input").input(token)
    press(app, "Approve")
    with reading(asking) as session:
        assert (access.trail(session)[0].who, access.trail(session)[0].action) == ("ada", "approve")


def test_a_run_that_cannot_obey_has_no_button(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, state=RunState.FINISHED, now=time.time())
    app = open_page("incident", run="spiky-1")
    assert "Roll back by hand" not in [button.label for button in app.button]


def test_another_rule_and_a_late_declared_event_judge_the_band_anew(store: sa.Engine) -> None:
    report_a_spike(store)

    def highest() -> float:
        time.sleep(FRESH_SECONDS)
        facts = stored_facts()
        return float(read_incident_window(facts, facts.incidents[0]).bands["grad_norm"].score.max())

    before = highest()
    with writing(store) as session:
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        run.policy = {**(run.policy or {}), "detection": {"adopt_rows": 5}}
    by_another_rule = highest()
    assert by_another_rule < before
    with writing(store) as session:
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        commands.add_event(
            session, run=run, key="e", segment=0, step=SPIKE - 2, time=1.0, kind="learning_rate", details={}
        )
    assert highest() < by_another_rule


def test_the_way_to_another_incident_leaves_the_steps_in_view_behind(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    with writing(store) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        commands.save_incident(
            session, run=run, number=2, segment=1, now=time.time(), kind="nonfinite", state="closed", signal="loss",
            onset_step=655, detected_step=655, peak_step=None, end_step=655, score=None, outcome="recovered",
            details={},
        )  # fmt: skip
    app = press(open_page("incident", run="spiky-1", incident="1", steps="400-430"), "Later")
    assert not app.exception
    assert app.query_params["incident"] == "2"
    assert "steps" not in app.query_params


def test_where_the_onset_is_out_of_view_nothing_is_told_of_it(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    shown = open_page("incident", run="spiky-1", incident="1", steps="100-200").dataframe[-1].value
    assert (shown[["Expected at onset", "Band at onset", "Highest score"]] == "-").all(axis=None)
