"""What the detection does about an incident: orders, budgets, operators' decisions, and forks."""

import json
from typing import Any

import numpy as np
import pytest

from lossguard import Limits
from lossguard.vocabulary.source_facts import SourceFacts
from lossguard.vocabulary.states import Outcome, Refusal
from monitor.detection import DetectionEngine, IllegalTransition, IncidentChanged, InterventionChanged, Policy, Rows
from tests.monitor.detection.runs import EffectLog, Trainer, begun, detected, healthy, orders, rows_of, spiked

AUTO = Policy(mode="auto", name="palm")  # type: ignore[arg-type]
APPROVE = Policy(mode="approve", name="palm")  # type: ignore[arg-type]


def test_a_spike_is_rolled_back_skipped_and_verified() -> None:
    trainer = Trainer(DetectionEngine(policy=AUTO), bad={300, 301, 302})
    story = trainer.run()
    (incident,) = story.incidents
    (done,) = story.interventions
    assert story.states(1) == ["ordered", "applied", "verified"]
    assert (done.rewind_to, done.skip_from, done.skip_to) == (200, 200, 400)
    assert (incident.state, incident.outcome, incident.detected_step) == ("closed", Outcome.RECOVERED, 301)
    assert "did not halve" in done.reasons[0]
    assert not any("Waiting is expected to cost" in reason for reason in done.reasons)  # it spoke for waiting


@pytest.mark.parametrize(
    ("fault", "compared", "end"),
    [
        ({"bad": {300}}, True, ", with the loss in its band, and no skipped sample was trained again."),
        ({"bad": {300}}, False, "; whether skipped samples came again was not compared."),
        ({"bad": {300}}, None, "; whether skipped samples came again was not compared."),
        ({"damaged_at": 300}, True, "with the loss in its band."),
    ],
)
def test_a_verified_rollback_says_what_is_known_of_the_samples_that_it_skipped(
    fault: dict[str, Any], compared: bool | None, end: str
) -> None:
    policy = Policy(mode="auto")  # type: ignore[arg-type]
    engine = DetectionEngine(policy=policy, can_skip="bad" in fault)
    (done,) = Trainer(engine, **fault, compared=compared).run().interventions
    assert done.state == "verified"
    assert done.reasons[-1].endswith(end)


def test_a_recurring_incident_escalates_deeper_and_wider_then_holds() -> None:
    trainer = Trainer(DetectionEngine(policy=AUTO), bad=set(), cursed=range(400, 403))
    story = trainer.run()
    assert [i.kind.value for i in story.interventions] == ["rollback", "rollback", "hold"]
    assert [i.attempt for i in story.interventions] == [1, 2, 3]
    assert trainer.rewinds[1] < trainer.rewinds[0]
    widths = [b - a for a, b in trainer.skips]
    assert widths[1] > widths[0]
    assert story.states(1)[-1] == story.states(2)[-1] == "recurred"


def test_a_loss_that_is_not_finite_after_every_restore_escalates_where_only_every_tenth_step_is_reported() -> None:
    """The onset is dated back to the row before, which lies before the restored step."""
    engine, story = DetectionEngine(policy=Policy(mode="auto")), EffectLog()  # type: ignore[arg-type]
    engine.set_source(SourceFacts(stride=10))
    steps = np.arange(0, 610, 10)
    columns = {name: column[steps] for name, column in healthy(610).items()}
    columns["loss"][-1] = np.nan
    restored = orders(story.add(engine.feed(Rows.of(steps, **columns), restorable=range(0, 610, 50))))
    for _ in range(3):
        order = restored[0]
        step = order.rewind_to
        assert step is not None
        story.add(engine.fork(step, "rollback", [], None, obeyed=order.number))
        restored = orders(story.add(engine.feed(Rows.of([step], loss=[np.nan]), restorable=range(0, step + 1, 50))))
    assert [each.attempt for each in story.interventions] == [1, 2, 3, 4]
    assert [each.state.value for each in story.interventions] == ["recurred"] * 3 + ["ordered"]


def test_the_last_attempt_lowers_the_learning_rate_where_that_is_allowed() -> None:
    policy = Policy(mode="auto", name="palm", allow_lr_scale=True)  # type: ignore[arg-type]
    story = Trainer(DetectionEngine(policy=policy), bad=set(), cursed=range(400, 403)).run()
    assert [i.lr_scale for i in story.interventions] == [None, None, 0.5, None]
    assert story.interventions[-1].kind == "hold"


def test_the_budget_of_a_run_ends_in_a_hold() -> None:
    policy = Policy(mode="auto", name="palm", budget_per_run=1)  # type: ignore[arg-type]
    story = Trainer(DetectionEngine(policy=policy), bad={200, 420 + 200}, steps=600).run()
    assert [i.kind.value for i in story.interventions] == ["rollback", "hold"]


def test_observe_mode_only_records_what_it_would_do() -> None:
    story = detected(spiked(at=300))
    assert story.interventions == []
    assert any("Observe mode: the policy would roll back." in reason for reason in story.incidents[0].reasons)


def test_a_run_that_only_reports_gets_no_order() -> None:
    story = detected(spiked(at=300), policy=AUTO, can_roll_back=False)
    assert story.interventions == []
    (reason_text,) = [reason for reason in story.incidents[0].reasons if "cannot roll back" in reason]
    assert reason_text.startswith("This run only reports and cannot roll back: the policy would roll back. In 16 steps")
    assert "Rewind to 200" in reason_text


@pytest.mark.parametrize("policy", [Policy(), APPROVE, AUTO])
def test_a_decision_to_wait_says_why_and_what_it_is_expected_to_cost(policy: Policy) -> None:
    story = detected(spiked(at=300, tail=8), policy=policy)
    (incident,) = story.incidents
    assert story.interventions == []
    first, last = [reason for reason in incident.reasons if "expected to cost" in reason]
    assert first.startswith("The loss may still fall back. Waiting is expected to cost")
    assert last.startswith("Nothing was done: the loss could still fall back. Waiting was expected to cost")
    expected_cost = {"palm": "rolling back 143.", "adaptive": "rolling back 211."}
    assert last.endswith(expected_cost[policy.name])


def back_in_part(left: float) -> dict[str, Any]:
    """A run whose loss jumps at step 300 and falls back within 20 steps, but for `left` of its standard deviations."""
    columns = spiked(at=300, tail=5)
    columns["loss"][300:] += left * 0.02
    return columns


def test_a_loss_that_is_back_in_its_band_only_in_part_has_not_recovered() -> None:
    story = detected(back_in_part(6.0), policy=AUTO)
    assert len(story.incidents) == 1
    (rollback,) = story.interventions
    assert "it did not halve, so the policy stops waiting" in rollback.reasons[0]


def test_a_loss_that_is_all_the_way_back_has_recovered() -> None:
    story = detected(back_in_part(0.0), policy=AUTO)
    assert [incident.outcome for incident in story.incidents] == [Outcome.RECOVERED]
    assert story.interventions == []


def test_a_spike_while_another_one_has_not_fully_recovered_is_an_incident_of_its_own() -> None:
    columns = back_in_part(6.0)
    columns["loss"][340:344] += 1.5
    story = detected(columns)
    assert [incident.onset_step for incident in story.incidents] == [300, 340]
    assert story.incidents[0].reasons[-1] == "A new alarm began before the signal had fully recovered."
    assert [incident.superseded_by for incident in story.incidents] == [2, None]


def test_a_precursor_says_at_once_that_a_checkpoint_should_be_saved() -> None:
    columns = healthy(400)
    columns["grad_norm"][300:306] *= 10
    story = detected(columns, policy=AUTO)
    assert "save a checkpoint now" in story.incidents[0].reasons[1]
    (last,) = [reason for reason in story.incidents[0].reasons if "Nothing was done" in reason]
    assert last.startswith("Nothing was done: the loss had not moved. Waiting was expected to cost")
    assert [e for e in story.effects if isinstance(e, IncidentChanged)][1].incident.state == "warning"


def test_only_what_was_ordered_uses_up_the_budget() -> None:
    columns = healthy(1200)
    for at, nats in ((300, 0.5), (600, 1.5), (900, 4.5)):  # what smaller ones did says nothing of a spike
        columns["loss"][at : at + 60] += nats
    policy = Policy(mode="approve", budget_per_run=1)  # type: ignore[arg-type]
    engine, story = DetectionEngine(policy=policy), EffectLog()
    for part in rows_of(columns).split(10):
        fresh = story.add(engine.feed(part, restorable=range(0, int(part.steps[-1]), 50)))
        for effect in fresh:
            if isinstance(effect, InterventionChanged) and effect.intervention.state == "proposed":
                story.add(engine.reject(effect.intervention.number))
    assert [i.kind.value for i in story.interventions] == ["rollback"] * 3
    assert engine.interventions.rollbacks_used == 0


def test_an_approved_proposal_uses_up_the_budget_and_an_operators_order_does_not() -> None:
    engine, story = waiting()
    story.add(engine.approve(1))
    assert engine.interventions.rollbacks_used == 1
    story.add(engine.rollback(reason="deeper"))
    assert story.interventions[-1].incident == 1
    assert engine.interventions.rollbacks_used == 1


def waiting() -> tuple[DetectionEngine, EffectLog]:
    """An engine with a proposal that waits for an operator."""
    engine, story = begun(rows_of(spiked(at=300))[:330], restorable=range(0, 330, 50), policy=APPROVE)
    assert story.interventions[0].state == "proposed"
    return engine, story


def test_a_proposal_that_an_operator_approves_is_ordered() -> None:
    engine, story = waiting()
    assert [order.number for order in orders(story.add(engine.approve(1)))] == [1]
    assert story.incidents[0].state == "treated"
    with pytest.raises(IllegalTransition):
        engine.approve(1)


def test_a_proposal_that_an_operator_rejects_is_not_made_again() -> None:
    engine, story = waiting()
    story.add(engine.reject(1))
    story.add(engine.feed(rows_of(spiked(at=300))[330:360]))
    assert [i.state.value for i in story.interventions] == ["rejected"]


def test_a_proposal_is_withdrawn_when_the_run_recovers_without_it() -> None:
    story = detected(spiked(at=300, tail=40), policy=APPROVE)
    assert [i.state.value for i in story.interventions] == ["withdrawn"]


def test_an_order_that_fails_is_followed_by_a_deeper_one() -> None:
    engine, story = DetectionEngine(policy=AUTO), EffectLog()
    rows = rows_of(spiked(at=300))
    story.add(engine.feed(rows[:330], restorable=range(0, 330, 50)))
    story.add(engine.order_failed(1, "checkpoint 200 is damaged"))
    story.add(engine.feed(rows[330:335]))
    first, second = story.interventions
    assert (first.state, second.attempt) == ("failed", 2)
    assert (first.rewind_to or 0) > (second.rewind_to or 0)


@pytest.mark.parametrize("name", ["adaptive", "palm"])
@pytest.mark.parametrize(("refusal", "kind"), [(Refusal.STALE, "rollback"), (None, "hold")])
def test_a_checkpoint_whose_restore_was_refused_is_ordered_again_and_one_that_failed_is_not(
    name: str, refusal: Refusal | None, kind: str
) -> None:
    policy = Policy(mode="auto", name=name)  # type: ignore[arg-type]
    engine, story, columns = DetectionEngine(policy=policy), EffectLog(), healthy(310)
    columns["loss"][300:] = np.nan
    story.add(engine.feed(rows_of(columns)[:301], restorable=[250]))
    story.add(engine.order_failed(1, "declared", refusal))
    engine.load_state_dict(json.loads(json.dumps(engine.state_dict())))
    story.add(engine.feed(rows_of(columns)[301:302]))
    first, second = story.interventions
    assert (first.kind, first.rewind_to, second.kind, second.attempt) == ("rollback", 250, kind, 2)
    assert second.rewind_to == (250 if refusal else None)


def test_an_operators_rollback_that_did_not_help_is_not_verified_in_mode_observe() -> None:
    rows = rows_of(spiked(at=300))
    engine, story = begun(rows[:330], restorable=range(0, 330, 50))
    story.add(engine.rollback(rewind_to=200))
    story.add(engine.fork(200, "rollback", [rows[:200]], None, obeyed=1))
    story.add(engine.feed(rows[200:]))
    assert story.states(1) == ["ordered", "applied", "recurred"]


def test_an_operators_rollback_for_an_open_incident_is_a_further_attempt_at_its_site() -> None:
    engine, story = DetectionEngine(policy=AUTO), EffectLog()
    rows = rows_of(spiked(at=300))
    story.add(engine.feed(rows[:330], restorable=range(0, 330, 50)))
    story.add(engine.order_failed(1, "checkpoint 200 is damaged"))
    (order,) = orders(story.add(engine.rollback(rewind_to=100)))
    assert (order.incident, order.attempt, order.site_start) == (1, 2, 300)
    story.add(engine.order_failed(2, "checkpoint 100 is damaged"))
    attempts = engine.interventions.attempts_at(300, 301)
    assert [(each.number, each.onset_step) for each in attempts] == [(1, 300), (2, 300)]


def test_an_operator_may_order_a_rollback_and_name_the_checkpoint() -> None:
    engine, story = begun(rows_of(healthy(400)), restorable=range(0, 400, 50))
    (order,) = orders(story.add(engine.rollback(rewind_to=260, skip_to=400, reason="bad shard")))
    assert (order.incident, order.rewind_to, order.skip_from, order.skip_to) == (None, 250, 250, 400)
    with pytest.raises(ValueError, match="no checkpoint"):
        engine.rollback(rewind_to=-5)


def test_an_operator_may_say_at_which_batch_the_skip_begins() -> None:
    engine, story = begun(rows_of(healthy(400)), restorable=range(0, 400, 50))
    for skip_from, skip_to, why in ((249, 400, "below the checkpoint's batch 250"), (300, 299, "below skip_from 300")):
        with pytest.raises(ValueError, match=why):
            engine.rollback(rewind_to=260, skip_from=skip_from, skip_to=skip_to)
    (order,) = orders(story.add(engine.rollback(rewind_to=260, skip_from=300, skip_to=310)))
    assert (order.rewind_to, order.skip_from, order.skip_to) == (250, 300, 310)


def test_an_operator_may_order_a_rollback_with_a_learning_rate_and_remedies_that_the_run_has_announced() -> None:
    engine, story = begun(
        rows_of(healthy(400)), restorable=range(0, 400, 50), can_scale_lr=True, remedies=["clip", "z_loss"]
    )
    with pytest.raises(ValueError, match="not registered the remedy 'moments': its remedies are clip, z_loss"):
        engine.rollback(rewind_to=260, remedies=["moments"])
    (order,) = orders(story.add(engine.rollback(rewind_to=260, lr_scale=0.5, remedies=["clip", "clip"])))
    assert (order.rewind_to, order.lr_scale, order.remedies) == (250, 0.5, ["clip"])
    assert engine.interventions.changes_updates(order.number)


def test_what_the_run_has_not_announced_or_its_trainer_would_refuse_is_refused() -> None:
    engine = DetectionEngine()
    engine.feed(rows_of(healthy(400)), restorable=range(0, 400, 50))
    with pytest.raises(ValueError, match="not registered the remedy 'clip': it has none"):
        engine.rollback(remedies=["clip"])
    with pytest.raises(ValueError, match="its loop has not multiplied its learning rate"):
        engine.rollback(lr_scale=0.5)
    limited = DetectionEngine(can_scale_lr=True, limits=Limits(allow_lr_scale=False))
    limited.feed(rows_of(healthy(400)), restorable=range(0, 400, 50))
    with pytest.raises(ValueError, match=r"would refuse this: it multiplies the learning rate by 0.5, and allow_lr"):
        limited.rollback(lr_scale=0.5)


def test_an_operator_may_hold_a_run_without_an_incident_and_release_it() -> None:
    engine, story = begun(rows_of(healthy(400)), restorable=range(0, 400, 50))
    (hold,) = orders(story.add(engine.hold("the disk is full")))
    assert (hold.kind, hold.incident, hold.reasons) == ("hold", None, ["the disk is full"])
    with pytest.raises(ValueError, match="held, or about to be"):
        engine.hold()
    story.add(engine.order_applied(hold.number, rewound_to=None, skip_from=None, skip_to=None))
    with pytest.raises(ValueError, match="held, or about to be"):
        engine.hold()
    (release,) = orders(story.add(engine.release()))
    assert (story.states(hold.number)[-1], release.kind) == ("released", "release")


def test_an_operators_hold_replaces_what_is_only_proposed() -> None:
    engine, story = DetectionEngine(policy=APPROVE), EffectLog()
    columns = healthy(301)
    columns["loss"][300] = np.nan
    story.add(engine.feed(rows_of(columns), restorable=range(0, 300, 50)))
    (hold,) = orders(story.add(engine.hold()))
    assert (story.states(1)[-1], hold.incident) == ("withdrawn", 1)


def test_a_rollback_that_was_carried_out_is_not_withdrawn_by_an_operators_hold() -> None:
    engine, story, snapshot = ordered()
    story.add(engine.fork(200, "rollback", [rows_of(healthy(600))[:200]], snapshot, obeyed=1))
    assert story.states(1)[-1] == "applied"
    story.add(engine.hold())
    assert story.states(1)[-1] == "replaced"


def test_a_run_that_only_reports_cannot_be_held() -> None:
    with pytest.raises(ValueError, match="this run only reports: it cannot be held"):
        DetectionEngine(can_roll_back=False).hold()


def test_an_operators_rollback_of_a_run_that_cannot_skip_only_rewinds_it() -> None:
    engine, story = begun(rows_of(healthy(400)), restorable=range(0, 400, 50), can_skip=False)
    with pytest.raises(ValueError, match="cannot leave batches out"):
        engine.rollback(rewind_to=260, skip_to=400)
    with pytest.raises(ValueError, match="cannot leave batches out"):
        engine.rollback(rewind_to=260, skip_from=300)
    for first, end in ((None, None), (None, 250), (300, 300)):  # no range, or an empty one
        (order,) = orders(story.add(engine.rollback(rewind_to=260, skip_from=first, skip_to=end)))
        assert (order.rewind_to, order.skip_from, order.skip_to) == (250, None, None)


def test_a_hold_ends_when_an_operator_releases_the_run() -> None:
    trainer = Trainer(DetectionEngine(policy=AUTO), bad=set(), cursed=range(400, 403))
    story = trainer.run()
    held = story.interventions[-1]
    (release,) = orders(story.add(trainer.engine.release("go on")))
    story.add(trainer.engine.order_applied(release.number, rewound_to=None, skip_from=None, skip_to=None))
    assert story.states(held.number)[-1] == "released"
    assert story.states(release.number)[-1] == "verified"
    with pytest.raises(ValueError, match="not held"):
        trainer.engine.release()


def test_a_held_run_that_restarts_is_watched_and_decided_about_again() -> None:
    policy = Policy(mode="auto", name="palm", budget_per_run=0)  # type: ignore[arg-type]
    engine, story, columns = DetectionEngine(policy=policy), EffectLog(), healthy(600)
    columns["loss"][300] = np.nan
    story.add(engine.feed(rows_of(columns)[:301], restorable=range(0, 300, 50)))
    story.add(engine.order_applied(1, rewound_to=None, skip_from=None, skip_to=None))
    story.add(engine.fork(250, "resume", [rows_of(columns)[:250]], None))
    assert story.states(1) == ["ordered", "applied", "withdrawn"]
    assert story.interventions[0].reasons[-1] == "The run was restarted."
    assert story.incidents[0].state == "closed"
    columns["loss"][300] = 2.2
    columns["loss"][400:] = np.nan
    story.add(engine.feed(rows_of(columns)[250:]))
    assert [(i.kind.value, i.state.value) for i in story.interventions[1:]] == [("hold", "ordered")]
    assert story.incidents[-1].detected_step == 400


def test_after_a_fork_the_detectors_are_those_of_the_fork_step() -> None:
    rows = rows_of(healthy(400))
    taught, plain = DetectionEngine(), DetectionEngine()
    plain.feed(rows[:200])
    snapshot = plain.detectors_state()
    taught.feed(rows_of(spiked(at=210, steps=400)))
    taught.fork(250, "rewind", [rows[200:250]], json.loads(json.dumps(snapshot)))
    plain.feed(rows[200:250])
    assert taught.detectors_state() == plain.detectors_state()


def ordered() -> tuple[DetectionEngine, EffectLog, dict[str, Any]]:
    """An engine with an open order to go back to step 200, and the detectors as they were there."""
    engine, story, rows = DetectionEngine(policy=AUTO), EffectLog(), rows_of(spiked(at=300))
    story.add(engine.feed(rows[:250], restorable=range(0, 250, 50)))
    snapshot = engine.detectors_state()
    story.add(engine.feed(rows[250:330], restorable=range(0, 330, 50)))
    assert story.interventions[0].state == "ordered"
    return engine, story, snapshot


def test_a_hold_that_crosses_a_rollback_which_the_trainer_has_carried_out_already_stands() -> None:
    engine, story, snapshot = ordered()
    (hold,) = orders(story.add(engine.hold()))
    story.add(engine.fork(200, "rollback", [rows_of(healthy(600))[:200]], snapshot, obeyed=1))
    story.add(engine.order_applied(hold.number, rewound_to=None, skip_from=None, skip_to=None))
    (release,) = orders(story.add(engine.release()))
    story.add(engine.order_applied(release.number, rewound_to=None, skip_from=None, skip_to=None))
    story.add(engine.feed(rows_of(healthy(600))[200:]))
    assert [each.state.value for each in story.interventions] == ["withdrawn", "released", "verified"]
    assert [(each.state.value, each.outcome) for each in story.incidents] == [("closed", Outcome.RECOVERED)]


@pytest.mark.parametrize("reason", ["resume", "rewind"])
def test_a_new_segment_that_does_not_name_the_order_leaves_it_open_with_its_incident(reason: str) -> None:
    engine, story, snapshot = ordered()
    story.add(engine.fork(250, reason, [], snapshot))
    story.add(engine.feed(rows_of(healthy(600))[250:300]))
    assert story.states(1) == ["ordered"]
    assert [incident.state.value for incident in story.incidents] == ["treated"]
    story.add(engine.order_failed(1, "checkpoint 200 is damaged"))
    story.add(engine.feed(rows_of(healthy(600))[300:310]))
    assert story.states(1) == ["ordered", "failed"]
    assert [(i.state.value, i.outcome) for i in story.incidents] == [("closed", Outcome.RECOVERED)]


def test_an_order_may_be_obeyed_after_a_segment_that_did_not() -> None:
    engine, story, snapshot = ordered()
    story.add(engine.fork(250, "resume", [], snapshot))
    story.add(engine.feed(rows_of(healthy(600))[250:270]))
    story.add(engine.fork(200, "rollback", [rows_of(healthy(600))[:200]], None, obeyed=1))
    assert story.states(1) == ["ordered", "applied"]
    story.add(engine.feed(rows_of(healthy(600))[200:]))
    assert story.states(1) == ["ordered", "applied", "verified"]
    assert len(story.incidents) == 1


def test_a_shift_that_was_declared_in_the_replayed_rows_is_no_incident_after_a_fork() -> None:
    columns = healthy(900)
    columns["loss"][600:] += 0.5
    rows, engine = rows_of(columns), DetectionEngine()
    engine.feed(rows[:550])
    snapshot = engine.detectors_state()
    engine.declare(600, "data_mix")
    engine.feed(rows[550:800])
    straight = DetectionEngine()
    straight.declare(600, "data_mix")
    straight.feed(rows[:650])
    engine.fork(650, "rewind", [rows[550:580], rows[580:650]], snapshot, declared=[(600, "data_mix")])
    assert engine.detectors_state() == straight.detectors_state()
    assert engine.feed(rows[650:]) == []


def test_the_bump_of_a_resume_is_no_incident() -> None:
    columns = healthy(700)
    columns["loss"][600:] += 0.15 * np.exp(-np.arange(100) / 50)
    rows, engine = rows_of(columns), DetectionEngine()
    engine.feed(rows[:600])
    snapshot = engine.detectors_state()
    engine.fork(600, "resume", [], snapshot)
    assert engine.feed(rows[600:]) == []


def test_an_alarm_on_the_old_segment_belongs_to_the_incident_that_was_ordered_for() -> None:
    engine, story = DetectionEngine(policy=AUTO), EffectLog()
    columns = spiked(at=300)
    columns["loss"][340:345] = np.nan
    story.add(engine.feed(rows_of(columns)[:400], restorable=range(0, 330, 50)))
    assert len(story.incidents) == len(story.interventions) == 1
    assert story.incidents[0].state == "treated"


def test_a_second_acknowledgement_changes_nothing_and_an_unknown_one_is_an_error() -> None:
    trainer = Trainer(DetectionEngine(policy=AUTO), bad={300, 301, 302})
    trainer.run()
    details: dict[str, Any] = {"rewound_to": 200, "skip_from": 200, "skip_to": 400}
    assert trainer.engine.order_applied(1, **details) == []
    with pytest.raises(ValueError, match="no intervention 7"):
        trainer.engine.order_applied(7, **details)


def test_what_recovers_in_rows_that_are_on_their_way_needs_no_order_and_what_lasts_gets_one() -> None:
    """A trainer that is far ahead would go back by all the steps that it has done since."""
    alone, lasting = healthy(700), healthy(700)
    alone["loss"][300] = lasting["loss"][300:] = np.nan
    for columns, is_behind, decided in ((alone, False, [300]), (alone, True, []), (lasting, True, [400])):
        engine, story = DetectionEngine(policy=Policy(mode="auto")), EffectLog()  # type: ignore[arg-type]
        engine.is_behind = is_behind
        story.add(engine.feed(rows_of(columns), restorable=range(0, 700, 50)))
        assert [each.decided_step for each in story.interventions] == decided
        assert story.incidents[0].state == ("closed" if columns is alone and is_behind else "treated")


def test_an_order_that_nobody_executes_any_more_is_withdrawn_when_the_run_goes_on_without_a_guard() -> None:
    columns = healthy(301)
    columns["loss"][300] = np.nan
    engine, story = begun(rows_of(columns), range(0, 300, 50), policy=Policy(mode="auto"))  # type: ignore[arg-type]
    assert story.interventions[0].state == "ordered"
    unguarded = DetectionEngine(policy=engine.policy, can_roll_back=False)
    unguarded.load_state_dict(engine.state_dict())
    story.add(unguarded.fork(250, "resume", [], None, obeyed=None))
    assert (story.interventions[0].state, story.incidents[0].state) == ("withdrawn", "closed")
    story.add(unguarded.feed(Rows.of([250, 251], loss=[np.nan] * 2)))
    assert [each.state for each in story.incidents] == ["closed", "open"]
