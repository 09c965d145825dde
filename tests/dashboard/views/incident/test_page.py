"""The incident's page: what it shows, and what a person can do there."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.incident_window import default_window
from dashboard.operator_actions import OperatorAction
from dashboard.views.decisions import approve, reject
from dashboard.views.manual_rollback import default_skip, rollback
from db import commands, queries
from db.models import Run
from db.records import access, preflights
from db.store.engine import reading, writing
from lossguard.vocabulary.protocol import CAN_ROLL_BACK, CANNOT_SKIP
from lossguard.vocabulary.states import RunState
from tests.dashboard.app_content import badges, column, figure, forget, metrics, names
from tests.dashboard.conftest import OpenPage
from tests.dashboard.live import SPIKE, report_a_spike
from tests.dashboard.seed import REWIND, SEGMENT_END, save_incident, stored, trail
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


def confirm(app: AppTest, label: str, typed: str | None = None) -> AppTest:
    """Type the word that the dialog asks for, and press its button."""
    app.text_input(key="confirm-word").input(label.upper() + " " if typed is None else typed)  # as phones do
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


def changed(engine: sa.Engine, **values: Any) -> None:
    """Change columns of the run `asking`."""
    with engine.begin() as connection:
        connection.execute(sa.update(Run).values(**values))
    forget()


def save_late(session: Any, run: Run, number: int = 1, **values: Any) -> None:
    """An incident around step 100."""
    usual = {"onset_step": 100, "detected_step": 107, "peak_step": 103, "score": 3.0, "outcome": "ongoing"}
    save_incident(session, run, number, now=time.time(), **(usual | values))


def test_an_empty_store_a_run_without_incidents_and_an_unknown_incident_are_explained(
    open_page: OpenPage, store: sa.Engine
) -> None:
    assert open_page("incident").info[0].value == "No runs yet."
    with writing(store) as session:
        run = add_run(session)
    forget()
    assert open_page("incident", run="r1").header[0].value == "No incidents"
    with writing(store) as session:
        save_late(session, run, kind="loss_spike")
    forget()
    app = open_page("incident", run="r1", incident="7")
    assert app.warning[0].value == "This run has no incident 7. The newest one is shown."
    assert app.query_params["incident"] == "1"
    assert not app.exception


def test_the_page_shows_the_incident_in_numbers_its_steps_and_the_verdict_of_a_replay(
    open_page: OpenPage, spiky: sa.Engine
) -> None:
    arm = {"state": "same", "batches": "same", "checkpoint": 300, "reproduced": True, "worst": "NaN", "expected": 2.2}
    culprits = [{"batch_from": 409, "batch_to": 412}]
    with writing(spiky) as session:
        run = stored(session)
        queries.incidents(session, run=run)[0].verdict = {
            "cause": "data", "sentence": "The data do it.", "culprits": culprits, "evidence": {"arms": [arm]},
        }  # fmt: skip
    app = open_page("incident", run="spiky-1", incident="1")
    shown = metrics(app)
    assert (shown["Expected"], shown["Detected after"]) == ("2.28 ± 0.03", "4 steps")
    assert (shown["Batches skipped"], shown["Steps discarded"]) == ("200", str(SEGMENT_END - REWIND))
    assert any("verified" in badge for badge in badges(app))
    text = " ".join(markdown.value for markdown in app.markdown)
    moments = ("Precursor", "Detected", "Peak", "Rollback decided", "Order applied", "Verified", "Closed")
    places = [text.index(f"**{moment}**") for moment in moments]
    assert places == sorted(places)
    drawing = figure(app)
    assert {"as it happened", "after the rollback", "expected band", "score of loss", "alarm"} <= names(drawing)
    steps = {trace["name"]: column(trace["x"]) for trace in drawing["data"] if "the rollback" in trace["name"]}
    original = column(next(trace for trace in drawing["data"] if trace["name"] == "as it happened")["x"])
    assert original == [*range(int(original[0]), SEGMENT_END)]
    assert steps["after the rollback"][0] == REWIND
    assert "**The data do it.**" in [markdown.value for markdown in app.markdown]
    assert app.dataframe[-1].value["Worst"].tolist() == ["NaN"]
    with spiky.begin() as connection:
        connection.execute(sa.text("UPDATE interventions SET skip_from = NULL, skip_to = NULL"))
    forget()
    assert metrics(open_page("incident", run="spiky-1", incident="1"))["Batches skipped"] == "0"


def test_a_link_with_steps_shows_these_steps_and_another_incident_resets_them(
    open_page: OpenPage, spiky: sa.Engine
) -> None:
    with writing(spiky) as session:
        run = stored(session)
        save_late(session, run, 2, segment=1, kind="nonfinite", onset_step=655, detected_step=655)
    app = open_page("incident", run="spiky-1", incident="1", steps="400-430", y="loss:1..2")
    assert list(figure(app)["layout"]["xaxis"]["range"]) == [400, 430]
    app = press(app, "Later")
    assert app.query_params["incident"] == "2"
    assert {"steps", "y"}.isdisjoint(app.query_params)
    shown = open_page("incident", run="spiky-1", incident="1", steps="100-200").dataframe[-1].value
    assert (shown[["Expected at onset", "Band at onset", "Highest score"]] == "-").all(axis=None)


def test_the_band_is_the_one_that_the_collector_used_until_policy_or_events_change_it(store: sa.Engine) -> None:
    report_a_spike(store)
    facts = stored_facts()
    (incident,) = facts.incidents
    seen = cached.incident_window(facts, incident)
    first = int(seen.original.steps[0])
    with reading(store) as session:  # a snapshot of the detectors existed
        assert queries.snapshot_before(session, run=facts.run, step=first) is not None
    band, at = seen.bands["loss"], incident.detected_step - first
    assert incident.details["expected"] == pytest.approx(band.expected[at], rel=1e-5)
    assert default_window(facts, incident).complete

    def highest() -> float:
        return float(cached.incident_window(stored_facts(), incident).bands["grad_norm"].score.max())

    before = highest()
    changed(store, policy={**(facts.run.policy or {}), "detection": {"adopt_rows": 5}})
    with_new_policy = highest()
    assert with_new_policy < before
    with writing(store) as session:
        run = session.merge(facts.run)
        values: dict[str, Any] = {"segment": 0, "step": SPIKE - 2, "time": 1.0, "kind": "learning_rate", "details": {}}
        commands.add_event(session, run=run, key="e", **values)
    forget()
    assert highest() < with_new_policy


@pytest.mark.parametrize(("verb", "state"), [("Approve", "ordered"), ("Reject", "rejected")])
def test_a_decision_is_confirmed_performed_recorded_and_final(
    open_page: OpenPage, asking: sa.Engine, verb: str, state: str
) -> None:
    app = press(open_page("incident", run="asking"), verb)
    assert f"{verb} intervention 1?" in " ".join(markdown.value for markdown in app.markdown)
    facts = stored_facts()
    each = facts.interventions[0]
    action = approve(facts, each) if verb == "Approve" else reject(each)
    for typed in ("", "approv"):  # clicks alone decide nothing: a page that frames this one could steal them
        refused = confirm(dialog(action), verb, typed)
        assert refused.error[0].value == f'Nothing was changed. Type "{verb.lower()}" into the field to confirm.'
    assert trail(asking) == ["policy"]
    assert not confirm(dialog(action), verb).exception
    assert trail(asking)[0] == verb.lower()
    with reading(asking) as session:
        assert queries.interventions(session, run=facts.run)[0].state == state
    late = confirm(dialog(reject(each)), "Reject")
    assert "Too late, or not possible now" in late.error[0].value


def test_the_dialog_of_a_manual_rollback_suggests_the_depth_of_the_policy_and_where_each_step_is_kept(
    open_page: OpenPage, asking: sa.Engine
) -> None:
    app = press(open_page("incident", run="asking"), "Roll back manually")
    assert (app.selectbox(key="rewind-step").value, app.number_input(key="skip-batches-500").value) == (500, 200)
    tiers = [{"tier": "memory", "steps": [650], "load_seconds": 0.14}, {"tier": "disk", "steps": [600]}]
    changed(asking, restorable_tiers=tiers)
    app = press(open_page("incident", run="asking"), "Roll back manually")
    assert app.selectbox(key="rewind-step").options[:3] == ["650 (from memory, 0.14 s)", "600 (from disk)", "550"]


@pytest.mark.usefixtures("asking")
def test_the_batches_to_skip_reach_from_the_chosen_checkpoint_to_past_the_detected_step() -> None:
    def script() -> None:
        from dashboard.data import cached
        from dashboard.views import manual_rollback

        facts = cached.facts("asking")
        assert facts is not None
        manual_rollback.dialog(facts, facts.incidents[0])

    app = AppTest.from_function(script, default_timeout=120).run()
    assert [each.value for each in app.number_input] == [200]
    app.selectbox(key="rewind-step").select(0).run()
    assert [each.value for each in app.number_input] == [stored_facts().incidents[0].detected_step + 1]


def test_the_batches_to_skip_are_counted_past_those_that_an_earlier_rollback_skipped(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "asking")
        for key, steps, skipped in (("a", range(60), 0), ("b", range(50, 100), 400)):
            segment = add_segment(session, run, key, steps[0])
            batches = [float(step + skipped) for step in steps]
            add_steps(session, run, segment, steps, loss=[3.0] * len(steps), batch_index=batches)
        save_incident(session, run, 1, detected_step=55)
        save_incident(session, run, 2, segment=1, detected_step=80)
    facts = stored_facts()
    early, late = facts.incidents
    assert default_skip(facts, late, 40) == 480 + 1 - 40
    assert default_skip(facts, late, 0) == 480 + 1
    assert default_skip(facts, early, 0) == 200, "its bad batch is number 55, on a line that was discarded"


@pytest.mark.parametrize(
    ("announced", "offered"),
    [
        (["lr-scale", "remedy:clip", "remedy:z_loss"], ["lr-scale", "remedies"]),
        (["lr-scale", "limits:allow_lr_scale=false"], []),
    ],
)
def test_the_dialog_offers_a_learning_rate_and_remedies_where_the_run_has_announced_them(
    open_page: OpenPage, asking: sa.Engine, announced: list[str], offered: list[str]
) -> None:
    changed(asking, capabilities=["rollback", *announced])
    app = press(open_page("incident", run="asking"), "Roll back manually")
    shown = [each.key for each in (*app.number_input, *app.multiselect)]
    assert [key for key in shown if key in ("lr-scale", "remedies")] == offered
    assert "remedies" not in offered or app.multiselect(key="remedies").options == ["clip", "z_loss"]


def test_a_manual_rollback_is_ordered_with_its_reason_its_learning_rate_and_remedies(asking: sa.Engine) -> None:
    changed(asking, capabilities=["rollback", "lr-scale", "remedy:clip"])
    facts = stored_facts()
    action = rollback(facts, 400, 30, lr_scale=0.5, remedies=["clip"])
    assert action.question == (
        "Roll back from step 670 to step 400 and skip 30 batches (400 to 429). This discards 270 steps of training. "
        "The learning rate is multiplied by 0.5. Remedies that are switched on: `clip`."
    )
    app = dialog(action, with_reason=True)
    app.text_input(key="confirm-reason").input("the shard is bad")
    confirm(app, "Roll back")
    with reading(asking) as session:
        order = queries.orders(session, run=facts.run)[-1]
        assert (order.rewind_to, order.skip_from, order.skip_to) == (400, 400, 430)
        assert (order.lr_scale, order.remedies) == (0.5, ["clip"])
        assert access.trail(session)[0].details["reason"] == "the shard is bad"


def test_a_manual_rollback_of_a_run_that_cannot_leave_batches_out_only_rewinds_it(
    open_page: OpenPage, asking: sa.Engine
) -> None:
    changed(asking, capabilities=["rollback", CANNOT_SKIP])
    app = press(open_page("incident", run="asking"), "Roll back manually")
    assert "Batches to skip" not in [each.label for each in app.number_input]
    shown = [each.value for each in app.markdown]
    assert any("Roll back from step 670 to step 500. This discards 170 steps" in each for each in shown)
    confirm(dialog(rollback(stored_facts(), 500, None)), "Roll back")
    with reading(asking) as session:
        order = queries.orders(session, run=stored_facts().run)[-1]
        assert (order.rewind_to, order.skip_from, order.skip_to) == (500, None, None)


def test_viewers_who_may_not_use_the_dashboards_token_need_one_of_their_own(
    asking: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_DASHBOARD_OPERATE", "0")
    monkeypatch.setenv("LOSSGUARD_TOKEN", "the dashboard's")
    app = confirm(dialog(approve(stored_facts(), stored_facts().interventions[0])), "Approve")
    assert app.error[0].value == "Enter a token with the scope `operate`."
    assert trail(asking) == ["policy"]
    with writing(asking) as session:
        token = access.create_token(session, name="ada", scopes=[access.Scope.OPERATE], project=None, now=1.0)[1]
    app.text_input(key="token-input").input(token)
    confirm(app, "Approve")
    with reading(asking) as session:
        assert (access.trail(session)[0].who, access.trail(session)[0].action) == ("ada", "approve")


@pytest.mark.parametrize(
    ("state", "signal"), [(RunState.RUNNING, "loss"), (RunState.FINISHED, "loss"), (RunState.RUNNING, "lr")]
)
def test_the_difference_of_recomputed_steps_can_be_accepted_and_is_no_new_level(
    open_page: OpenPage, store: sa.Engine, state: RunState, signal: str
) -> None:
    details = {"reasons": ["It differs."], "expected": 5e-4, "scale": 0.0}
    with writing(store) as session:
        run = add_run(session)
        run.state = state
        save_late(session, run, kind="replay_mismatch", signal=signal, details=details)
    app = open_page("incident", run="r1")
    assert app.header[0].value == "Incident 1: replay mismatch"
    labels = [button.label for button in app.button]
    assert ("This difference is normal" in labels, "This is the new normal" in labels) == (True, False)
    assert "Replay" not in [each.value for each in app.subheader]
    shown = metrics(app)
    assert (shown["Recorded"], "Expected" in shown) == ("0.0005", False)


@pytest.mark.parametrize(
    ("kind", "signal", "label", "value"),
    [
        ("stall", "step_seconds", "Limit", "2 min 00 s"),
        ("slowdown", "throughput", "Usual", "120 ± 2"),
        ("slowdown", "data_seconds", "Waiting for data", "700.0%"),
    ],
)
def test_an_incident_of_the_speed_says_what_is_usual(
    open_page: OpenPage, store: sa.Engine, kind: str, signal: str, label: str, value: str
) -> None:
    peak = 7.0 if signal == "data_seconds" else 700.0
    details = {"reasons": ["The process lives."], "peak_value": peak, "expected": 120.0, "scale": 2.0}
    with writing(store) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(150), loss=[3.0] * 150)
        save_late(session, run, kind=kind, signal=signal, details=details)
    app = open_page("incident", run="r1")
    assert app.header[0].value == f"Incident 1: {kind}"
    assert metrics(app)[label] == value
    assert "This is the new normal" not in [button.label for button in app.button]


def test_the_time_of_a_stall_goes_on_and_no_rollback_is_offered_to_a_loop_that_hangs(
    open_page: OpenPage, store: sa.Engine
) -> None:
    with writing(store) as session:
        run = add_run(session)
        run.capabilities, run.restorable_steps = [CAN_ROLL_BACK], [50]
        add_steps(session, run, add_segment(session, run, "a"), range(150), loss=[3.0] * 150)
        save_late(session, run, kind="stall", signal="step_seconds", details={"peak_value": 61.0})
        queries.incidents(session, run=run)[0].opened_at -= 3600
    app = open_page("incident", run="r1")
    assert metrics(app)["Without a step"] == "1 h 01 min"
    assert "Roll back manually" not in [button.label for button in app.button]
    assert any("A loop that hangs takes no order" in each.value for each in app.caption)


def test_a_rise_of_the_held_out_loss_shows_its_few_values_as_points(open_page: OpenPage, store: sa.Engine) -> None:
    held_out = [None if step % 10 else 2.0 + step / 1000 for step in range(150)]
    details = {"reasons": ["It rises."], "peak_value": 2.14, "expected": 2.0, "scale": 0.001}
    with writing(store) as session:
        run = add_run(session)
        segment = add_segment(session, run, "a")
        add_steps(session, run, segment, range(150), loss=[3.0] * 150, held_out_loss=held_out)
        save_late(session, run, kind="held_out_rise", state="warning", signal="held_out_loss", details=details)
    app = open_page("incident", run="r1")
    assert app.header[0].value == "Incident 1: rise of the held-out loss"
    (drawn,) = [each for each in figure(app)["data"] if "held-out" in each.get("hovertemplate", "")]
    assert (drawn["mode"], len(column(drawn["y"]))) == ("lines+markers", 15)
    assert drawn["yaxis"] == "y"  # its panel is the first one
    assert not [name for name in names(figure(app)) if "score" in name or name == "precursor"]


def answered(engine: sa.Engine, **answer: object) -> None:
    """The trainer has just answered about the proposed rollback."""
    with writing(engine) as session:
        run = stored(session, "asking")
        answer = {"problem": "", "tier": "disk", "refused": "", "texts": []} | answer
        preflights.save_answer(session, run=run, intervention=1, answer=answer, now=time.time())


def test_a_panel_says_before_an_approval_what_the_trainer_has_found(open_page: OpenPage, asking: sa.Engine) -> None:
    answered(asking, texts=[{"batch": 630, "text": "the **cat**\u202e sat"}])
    app = open_page("incident", run="asking")
    assert metrics(app)["Checkpoint"] == "disk"
    assert metrics(app)["Discards"].endswith(" steps")
    assert any("the trainer said so" in each.value for each in app.markdown)
    assert [each.value for each in app.code] == ["the **cat**\\u202e sat"]
    assert not app.error
    answered(asking, problem="model.pt is missing", tier=None, refused="it skips 9 batches, and max\\_skip=3")
    forget()
    app = open_page("incident", run="asking")
    assert metrics(app)["Checkpoint"] == "gone"
    assert [each.value[:38] for each in app.error] == [
        "The trainer would refuse this order: i",
        "The checkpoint cannot be restored. An ",
    ]


def test_a_link_opens_the_dialog_of_an_approval_once_if_it_still_waits(open_page: OpenPage, asking: sa.Engine) -> None:
    app = open_page("incident", run="asking", incident="1", approve="1")
    assert app.text_input(key="confirm-word")
    assert any("Approve intervention 1?" in each.value and "Not asked" in each.value for each in app.markdown)
    assert "approve" not in app.query_params
    app = open_page("incident", run="asking", incident="1", approve="7")
    assert any("Intervention 7 does not wait for approval any more." in each.value for each in app.info)
    assert "confirm-word" not in [each.key for each in app.text_input]
