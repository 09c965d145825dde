"""The incident's page: what it shows, and what a person can do there."""

import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import default_window
from dashboard.data.store import CACHE_SECONDS
from dashboard.operator_actions import OperatorAction
from dashboard.views.decisions import approve, reject
from dashboard.views.manual_rollback import rollback
from db import commands, queries
from db.models import Run
from db.records import access, preflights
from db.store.engine import reading, writing
from lossguard.vocabulary.states import RunState
from tests.dashboard.app_content import badges, column, figure, metrics, names
from tests.dashboard.conftest import OpenPage
from tests.dashboard.live import SPIKE, report_a_spike
from tests.dashboard.seed import REWIND, SEGMENT_END, seed
from tests.dashboard.serving import serving
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def asking(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """A run with a proposed intervention, and the collector that it reports to."""
    report_a_spike(store)
    with serving(store) as url:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        monkeypatch.setenv("LOSSGUARD_DASHBOARD_OPERATE", "1")
        yield store


def press(app: AppTest, label: str) -> AppTest:
    (button,) = [each for each in app.button if each.label == label][-1:]
    return button.click().run()


def confirm(app: AppTest, label: str) -> AppTest:
    """Type the word that the dialog asks for, and press its button."""
    app.text_input(key="confirm-word").input(label.upper() + " ")  # a phone's keyboard adds capitals and spaces
    return press(app, label)


def dialog(action: OperatorAction, *, with_reason: bool = False) -> AppTest:
    """The content of the dialog. A press in an open dialog reruns only the dialog, which AppTest cannot do."""

    def script(action: object, with_reason: bool) -> None:
        from dashboard.views import operate

        operate.confirmation_form(action, fields=operate.reason if with_reason else dict)  # type: ignore[arg-type]

    arguments = {"action": action, "with_reason": with_reason}
    return AppTest.from_function(script, default_timeout=120, kwargs=arguments).run()


def stored_facts() -> RunFacts:
    facts = cached.facts("asking")
    assert facts is not None
    return facts


def recorded_actions(engine: sa.Engine) -> list[str]:
    """The actions in the audit trail, newest first."""
    with reading(engine) as session:
        return [row.action for row in access.trail(session)]


def test_a_run_without_incidents_says_so(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        add_run(session)
    app = open_page("incident", run="r1")
    assert not app.exception
    assert app.header[0].value == "No incidents"


def test_an_empty_store_and_an_unknown_incident_are_explained(open_page: OpenPage, store: sa.Engine) -> None:
    assert open_page("incident").info[0].value == "No runs yet."
    seed(store, now=time.time())
    app = open_page("incident", run="spiky-1", incident="7")
    assert not app.exception
    assert app.warning[0].value == "This run has no incident 7. The newest one is shown."
    assert app.query_params["incident"] == "1"


def test_the_page_shows_the_incident_in_numbers(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("incident", run="spiky-1", incident="1")
    shown = metrics(app)
    assert shown["Expected"] == "2.28 ± 0.03"
    assert shown["Detected after"] == "4 steps"
    assert (shown["Batches skipped"], shown["Steps discarded"]) == ("200", str(SEGMENT_END - REWIND))
    assert any("verified" in badge for badge in badges(app))
    text = " ".join(markdown.value for markdown in app.markdown)
    moments = ("Precursor", "Detected", "Peak", "Rollback decided", "Order applied", "Verified", "Closed")
    assert [text.index(f"**{moment}**") for moment in moments] == sorted(
        text.index(f"**{moment}**") for moment in moments
    )


def test_every_step_around_it_is_drawn_with_the_expected_band_and_the_replacement_line(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time())
    drawing = figure(open_page("incident", run="spiky-1", incident="1"))
    assert {"as it happened", "after the rollback", "expected band", "score of loss", "alarm"} <= names(drawing)
    original = next(trace for trace in drawing["data"] if trace["name"] == "as it happened")
    x = column(original["x"])
    assert x == [*range(int(x[0]), SEGMENT_END)]
    after = next(trace for trace in drawing["data"] if trace["name"] == "after the rollback")
    assert column(after["x"])[0] == REWIND


def test_a_link_with_steps_shows_these_steps(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    drawing = figure(open_page("incident", run="spiky-1", incident="1", steps="400-430"))
    assert list(drawing["layout"]["xaxis"]["range"]) == [400, 430]


def test_the_band_is_the_one_that_the_collector_used(store: sa.Engine) -> None:
    report_a_spike(store)
    facts = stored_facts()
    (incident,) = facts.incidents
    seen = cached.incident_window(facts, incident)
    first = int(seen.original.steps[0])
    with reading(store) as session:  # a snapshot of the detectors existed
        assert queries.snapshot_before(session, run=facts.run, step=first) is not None
    band, at = seen.bands["grad_norm"], incident.detected_step - first
    assert f"expected {band.expected[at]:.5g} \u00b1" in incident.details["reasons"][0]
    assert default_window(facts, incident).complete


def test_the_verdict_of_a_replay_is_shown(open_page: OpenPage, store: sa.Engine) -> None:
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
def test_a_button_asks_for_confirmation_before_it_acts(open_page: OpenPage, asking: sa.Engine, verb: str) -> None:
    app = press(open_page("incident", run="asking"), verb)
    assert f"{verb} intervention 1?" in " ".join(markdown.value for markdown in app.markdown)
    assert recorded_actions(asking) == ["policy"]


@pytest.mark.parametrize(("verb", "state"), [("Approve", "ordered"), ("Reject", "rejected")])
def test_the_confirmed_action_is_performed_and_recorded_in_the_audit_trail(
    asking: sa.Engine, verb: str, state: str
) -> None:
    facts = stored_facts()
    each = facts.interventions[0]
    action = approve(facts, each) if verb == "Approve" else reject(each)
    assert not confirm(dialog(action), verb).exception
    assert recorded_actions(asking)[0] == verb.lower()
    with reading(asking) as session:
        assert queries.interventions(session, run=facts.run)[0].state == state


def test_a_rollback_that_uses_the_same_batches_again_lists_none(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE interventions SET skip_from = NULL, skip_to = NULL"))
    app = open_page("incident", run="spiky-1", incident="1")
    assert metrics(app)["Batches skipped"] == "0"
    assert "Batches skipped" not in [each.value for each in app.subheader]


@pytest.mark.parametrize("typed", ["", "reject", "approv"])
def test_clicks_alone_decide_nothing_because_a_page_that_frames_this_one_can_steal_them(
    asking: sa.Engine, typed: str
) -> None:
    app = dialog(approve(stored_facts(), stored_facts().interventions[0]))
    app.text_input(key="confirm-word").input(typed)
    refused = press(app, "Approve")
    assert refused.error[0].value == 'Nothing was changed. Type "approve" into the field to confirm.'
    assert recorded_actions(asking) == ["policy"]


def test_a_dialog_that_is_refreshed_keeps_why_the_last_press_did_nothing(asking: sa.Engine) -> None:
    def script(action: object) -> None:
        from dashboard.views import operate

        operate.form_until(lambda: None, action)  # type: ignore[arg-type]

    action = reject(stored_facts().interventions[0])
    app = AppTest.from_function(script, default_timeout=120, kwargs={"action": action}).run()
    app.text_input(key="confirm-word").input("no")
    refused = press(app, "Reject").run()
    assert [each.value[:20] for each in refused.error] == ["Nothing was changed."]
    refused.text_input(key="confirm-word").input("reject")
    assert not press(refused, "Reject").error
    assert recorded_actions(asking)[0] == "reject"


def test_a_decision_after_another_one_is_refused_with_a_reason(asking: sa.Engine) -> None:
    (waiting,) = stored_facts().interventions
    confirm(dialog(reject(waiting)), "Reject")
    late = confirm(dialog(approve(stored_facts(), waiting)), "Approve")
    assert not late.exception
    assert "Too late, or not possible now: intervention 1 is not active." in late.error[0].value


def test_the_dialog_of_a_manual_rollback_suggests_the_depth_of_the_policy(
    open_page: OpenPage, asking: sa.Engine
) -> None:
    app = press(open_page("incident", run="asking"), "Roll back manually")
    assert app.selectbox(key="rewind-step").value == 500
    assert app.number_input(key="skip-batches").value == 200


def test_the_dialog_of_a_manual_rollback_says_where_each_step_is_kept_if_the_run_does(
    open_page: OpenPage, asking: sa.Engine
) -> None:
    tiers = [{"tier": "memory", "steps": [650], "load_seconds": 0.14}, {"tier": "disk", "steps": [600]}]
    with asking.begin() as connection:
        connection.execute(sa.update(Run).values(restorable_tiers=tiers))
    app = press(open_page("incident", run="asking"), "Roll back manually")
    assert app.selectbox(key="rewind-step").options[:3] == ["650 (from memory, 0.14 s)", "600 (from disk)", "550"]


def test_a_manual_rollback_is_ordered_with_its_reason(asking: sa.Engine) -> None:
    facts = stored_facts()
    action = rollback(facts, 400, 30)
    question = (
        "Roll back from step 670 to step 400 and skip 30 batches [400, 430). This discards 270 steps of training."
    )
    assert action.question == question
    app = dialog(action, with_reason=True)
    app.text_input(key="confirm-reason").input("the shard is bad")
    confirm(app, "Roll back")
    with reading(asking) as session:
        order = queries.orders(session, run=facts.run)[-1]
        assert (order.rewind_to, order.skip_from, order.skip_to) == (400, 400, 430)
        assert access.trail(session)[0].details["reason"] == "the shard is bad"


@pytest.mark.parametrize(
    ("announced", "offered"),
    [
        (["lr-scale", "remedy:clip", "remedy:z_loss"], ["lr-scale", "remedies"]),
        (["lr-scale", "limits:allow_lr_scale=false"], []),
        ([], []),
    ],
)
def test_the_dialog_offers_a_learning_rate_and_remedies_where_the_run_has_announced_them(
    open_page: OpenPage, asking: sa.Engine, announced: list[str], offered: list[str]
) -> None:
    with asking.begin() as connection:
        connection.execute(sa.update(Run).values(capabilities=["rollback", *announced]))
    app = press(open_page("incident", run="asking"), "Roll back manually")
    shown = [each.key for each in (*app.number_input, *app.multiselect)]
    assert [key for key in shown if key in ("lr-scale", "remedies")] == offered
    if "remedies" in offered:
        assert app.multiselect(key="remedies").options == ["clip", "z_loss"]


def test_a_manual_rollback_is_ordered_with_its_learning_rate_and_remedies(asking: sa.Engine) -> None:
    with asking.begin() as connection:
        connection.execute(sa.update(Run).values(capabilities=["rollback", "lr-scale", "remedy:clip"]))
    action = rollback(stored_facts(), 400, 30, lr_scale=0.5, remedies=["clip"])
    assert action.question.endswith("The learning rate is multiplied by 0.5. Remedies that are switched on: `clip`.")
    confirm(dialog(action), "Roll back")
    with reading(asking) as session:
        order = queries.orders(session, run=stored_facts().run)[-1]
        assert (order.lr_scale, order.remedies) == (0.5, ["clip"])


def test_viewers_who_may_not_use_the_dashboards_token_need_one_of_their_own(
    asking: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_DASHBOARD_OPERATE", "0")
    monkeypatch.setenv("LOSSGUARD_TOKEN", "the dashboard's")
    app = confirm(dialog(approve(stored_facts(), stored_facts().interventions[0])), "Approve")
    assert app.error[0].value == "Enter a token with the scope `operate`."
    assert recorded_actions(asking) == ["policy"]
    with writing(asking) as session:
        token = access.create_token(session, name="ada", scopes=[access.Scope.OPERATE], project=None, now=1.0)[1]
    app.text_input(key="token-input").input(token)
    confirm(app, "Approve")
    with reading(asking) as session:
        assert (access.trail(session)[0].who, access.trail(session)[0].action) == ("ada", "approve")


def test_a_run_that_takes_no_orders_has_no_rollback_button(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, state=RunState.FINISHED, now=time.time())
    app = open_page("incident", run="spiky-1")
    assert "Roll back manually" not in [button.label for button in app.button]


@pytest.mark.parametrize(
    ("state", "signal"), [(RunState.RUNNING, "loss"), (RunState.FINISHED, "loss"), (RunState.RUNNING, "lr")]
)
def test_the_difference_of_recomputed_steps_can_be_accepted_and_is_no_new_level(
    open_page: OpenPage, store: sa.Engine, state: RunState, signal: str
) -> None:
    with writing(store) as session:
        run = add_run(session)
        run.state = state
        commands.save_incident(
            session, run=run, number=1, segment=0, now=time.time(), kind="replay_mismatch", state="open",
            signal=signal, onset_step=100, detected_step=107, peak_step=103, end_step=None, score=3.0,
            outcome="ongoing", details={"reasons": ["It differs."], "expected": 5e-4, "scale": 0.0},
        )  # fmt: skip
    app = open_page("incident", run="r1")
    assert not app.exception
    assert app.header[0].value == "Incident 1: replay mismatch"
    labels = [button.label for button in app.button]
    assert ("This difference is normal" in labels, "This is the new normal" in labels) == (True, False)
    assert "Replay" not in [each.value for each in app.subheader]
    shown = [each.label for each in app.metric]
    assert ("Recorded" in shown, "Expected" in shown) == (True, False)
    assert next(each.value for each in app.metric if each.label == "Recorded") == "0.0005"


@pytest.mark.parametrize(
    ("kind", "signal", "label", "value"),
    [
        ("stall", "step_seconds", "Limit", "2 min 00 s"),
        ("slowdown", "throughput", "Usual", "120 ± 2"),
        ("slowdown", "data_seconds", "Waiting for data", "700.0%"),
    ],
)
def test_an_incident_of_the_speed_says_what_is_usual_and_shows_the_time_per_step(
    open_page: OpenPage, store: sa.Engine, kind: str, signal: str, label: str, value: str
) -> None:
    details = {"reasons": ["The process lives."], "peak_value": 7.0 if signal == "data_seconds" else 700.0}
    details |= {"expected": 120.0, "scale": 2.0}
    with writing(store) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(150), loss=[3.0] * 150)
        commands.save_incident(
            session, run=run, number=1, segment=0, now=time.time(), kind=kind, state="open",
            signal=signal, onset_step=100, detected_step=116, peak_step=116, end_step=None, score=3.0,
            outcome="ongoing", details=details,
        )  # fmt: skip
    app = open_page("incident", run="r1")
    assert not app.exception
    assert app.header[0].value == f"Incident 1: {kind}"
    assert {each.label: each.value for each in app.metric}[label] == value
    assert "This is the new normal" not in [button.label for button in app.button]
    assert "Replay" not in [each.value for each in app.subheader]


@pytest.mark.slow
def test_a_rise_of_the_held_out_loss_shows_its_few_values_as_points(open_page: OpenPage, store: sa.Engine) -> None:
    held_out = [None if step % 10 else 2.0 + step / 1000 for step in range(150)]
    with writing(store) as session:
        run = add_run(session)
        segment = add_segment(session, run, "a")
        add_steps(session, run, segment, range(150), loss=[3.0] * 150, held_out_loss=held_out)
        commands.save_incident(
            session, run=run, number=1, segment=0, now=time.time(), kind="held_out_rise", state="warning",
            signal="held_out_loss", onset_step=60, detected_step=90, peak_step=140, end_step=None, score=2.0,
            outcome="ongoing", details={"reasons": ["It rises."], "peak_value": 2.14, "expected": 2.0, "scale": 0.001},
        )  # fmt: skip
    app = open_page("incident", run="r1")
    assert not app.exception
    assert app.header[0].value == "Incident 1: rise of the held-out loss"
    (drawn,) = [each for each in figure(app)["data"] if "held-out" in each.get("hovertemplate", "")]
    assert (drawn["mode"], len(column(drawn["y"]))) == ("lines+markers", 15)
    assert drawn["yaxis"] == "y"  # its panel is the first one
    assert not [name for name in names(figure(app)) if "score" in name or name == "precursor"]


def test_a_new_policy_and_a_late_declared_event_change_the_band(store: sa.Engine) -> None:
    report_a_spike(store)

    def highest() -> float:
        time.sleep(CACHE_SECONDS)  # until the cached answer has expired
        facts = stored_facts()
        return float(cached.incident_window(facts, facts.incidents[0]).bands["grad_norm"].score.max())

    before = highest()
    with writing(store) as session:
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        run.policy = {**(run.policy or {}), "detection": {"adopt_rows": 5}}
    with_new_policy = highest()
    assert with_new_policy < before
    with writing(store) as session:
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        commands.add_event(
            session, run=run, key="e", segment=0, step=SPIKE - 2, time=1.0, kind="learning_rate", details={}
        )
    assert highest() < with_new_policy


def test_going_to_another_incident_resets_the_steps_in_view(open_page: OpenPage, store: sa.Engine) -> None:
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


def test_values_at_an_onset_out_of_view_are_dashes(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    shown = open_page("incident", run="spiky-1", incident="1", steps="100-200").dataframe[-1].value
    assert (shown[["Expected at onset", "Band at onset", "Highest score"]] == "-").all(axis=None)


def answered(engine: sa.Engine, **answer: object) -> None:
    """The trainer has just answered about the proposed rollback."""
    with writing(engine) as session:
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        answer = {"problem": "", "tier": "disk", "refused": "", "texts": []} | answer
        preflights.save_answer(session, run=run, intervention=1, answer=answer, now=time.time())


def test_a_panel_says_before_an_approval_what_the_trainer_has_found(open_page: OpenPage, asking: sa.Engine) -> None:
    answered(asking, texts=[{"batch": 630, "text": "the **cat**\u202e sat"}])
    app = open_page("incident", run="asking")
    assert not app.exception
    assert metrics(app)["Checkpoint"] == "disk"
    assert metrics(app)["Discards"].endswith(" steps")
    assert any("the trainer said so" in each.value for each in app.markdown)
    assert [each.value for each in app.code] == ["the **cat**\\u202e sat"]
    assert not app.error


def test_a_checkpoint_that_is_gone_and_limits_that_refuse_are_shown_as_errors(
    open_page: OpenPage, asking: sa.Engine
) -> None:
    answered(asking, problem="model.pt is missing", tier=None, refused="it skips 9 batches, and max\\_skip=3")
    app = open_page("incident", run="asking")
    assert metrics(app)["Checkpoint"] == "gone"
    assert [each.value[:38] for each in app.error] == [
        "The trainer would refuse this order: i",
        "The checkpoint cannot be restored. An ",
    ]


def test_a_link_opens_the_dialog_of_the_approval_once(open_page: OpenPage, asking: sa.Engine) -> None:
    app = open_page("incident", run="asking", incident="1", approve="1")
    assert not app.exception
    assert app.text_input(key="confirm-word")
    assert any("Approve intervention 1?" in each.value and "Not asked" in each.value for each in app.markdown)
    assert "approve" not in app.query_params


def test_a_link_to_an_approval_that_nobody_waits_for_says_so(open_page: OpenPage, asking: sa.Engine) -> None:
    app = open_page("incident", run="asking", incident="1", approve="7")
    assert any("Intervention 7 does not wait for approval any more." in each.value for each in app.info)
    assert "confirm-word" not in [each.key for each in app.text_input]
