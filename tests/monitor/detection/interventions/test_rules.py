"""Waiting, giving up, and the limits of a trainer, whatever the policy."""

import numpy as np
import pytest

from lossguard import Limits
from lossguard.vocabulary.states import IncidentKind, OrderKind, OrderMode, Refusal
from monitor.detection import DetectionEngine, Policy, Rows
from monitor.detection.interventions.palm import palm
from monitor.detection.interventions.rules import MAX_SHOWN, costs, evidence, give_up, reason_to_act, too_early
from monitor.detection.rows import Floats
from tests.monitor.detection.interventions.situations import attempt, batch_of, situation
from tests.monitor.detection.runs import EffectLog, Trainer, rows_of, spiked


def test_waiting_costs_more_the_likelier_the_loss_lasts() -> None:
    likely, unlikely = (costs(Policy(), situation(lasting_probability=p), 130.0) for p in (0.1, 0.9))
    assert likely.wait < likely.roll_back < unlikely.wait
    assert costs(Policy(), situation(non_finite=True), 130.0).recovery_probability == 0
    assert costs(Policy(), situation(), 130.0).recovery_probability == 0.5


def test_the_reason_names_the_rule_that_ended_the_waiting() -> None:
    def reason(**changes: object) -> str:
        return reason_to_act(Policy(), situation(**changes)) or ""

    assert "not finite" in reason(non_finite=True)
    assert "did not halve" in reason()
    assert "rose on 5 consecutive rows" in reason(rising_rows=5)
    assert "After 18 rows the spike recovers by itself in about 2 of 10 such cases" in reason(lasting_probability=0.8)
    assert reason(excess=0.1) == ""
    assert reason(excess=0.0, lasting_probability=0.8) == ""


def test_nothing_is_done_about_what_is_enough_for_an_incident_alone() -> None:
    now = situation(sure=False)
    assert "not for an action" in (too_early(now) or [""])[0]
    assert reason_to_act(Policy(), now) is None
    assert reason_to_act(Policy(), situation(sure=False, non_finite=True)) is not None


@pytest.mark.parametrize(
    ("lasting", "others", "rows", "waits"),
    [
        (0.3, True, 80, True),
        (0.3, True, 81, False),
        (0.7, True, 1, False),
        (0.3, False, 11, True),
        (0.3, False, 12, False),
    ],
)
def test_a_spike_that_may_recover_is_left_alone(lasting: float, others: bool, rows: int, waits: bool) -> None:
    now = situation(lasting_probability=lasting, others_recovered=others, falls=0, rises=rows)
    assert (too_early(now) is not None) == waits
    assert (reason_to_act(Policy(), now) is None) == waits


def test_a_loss_that_rises_on_and_on_is_waited_for_only_where_others_came_back() -> None:
    now = [situation(kind=IncidentKind.DIVERGENCE, lasting_probability=0.3, others_recovered=each) for each in (0, 1)]
    assert [too_early(each) is None for each in now] == [True, False]


def with_spikes(*spikes: tuple[int, int, float], seed: int = 0) -> Floats:
    """A loss that lies (step, rows, nats) higher than usual."""
    loss = 2.2 + 0.02 * np.random.default_rng(seed).standard_normal(2000)
    for step, rows, nats in spikes:
        loss[step : step + rows] += nats
    return loss


def acted_on(loss: Floats) -> list[tuple[int, int]]:
    """(onset, decision) of the rollbacks that the policy would order."""
    engine, log = DetectionEngine(policy=Policy(mode="approve")), EffectLog()  # type: ignore[arg-type]
    log.add(engine.feed(Rows.of(np.arange(len(loss)), loss=loss), restorable=range(0, len(loss), 50)))
    onsets = {each.number: each.onset_step for each in log.incidents}
    return [(onsets[each.incident], each.decided_step) for each in log.interventions if each.incident is not None]


def test_a_run_whose_spikes_recover_leaves_the_next_one_alone_for_longer() -> None:
    assert acted_on(with_spikes((500, 20, 0.3))) == [(500, 513)]
    assert acted_on(with_spikes((300, 10, 0.3), (500, 20, 0.3))) == []
    assert acted_on(with_spikes((300, 10, 0.15), (500, 20, 0.6))) == []


def test_small_spikes_do_not_say_how_long_a_much_larger_one_takes() -> None:
    (onset, decided), *_ = acted_on(with_spikes((300, 10, 0.15), (500, 200, 0.6)))
    assert onset == 500
    assert decided <= 525


def test_a_rise_that_stays_is_acted_on_after_the_rows_that_others_took() -> None:
    (onset, decided), *_ = acted_on(with_spikes((300, 10, 0.3), (500, 1500, 0.3)))
    assert onset == 500
    assert 513 < decided <= 535


@pytest.mark.parametrize("seed", range(5))
def test_the_way_back_from_an_easy_stretch_is_no_spike(seed: int) -> None:
    assert acted_on(with_spikes((400, 24, -0.12), (800, 12, -0.1), (1200, 18, -0.14), seed=seed)) == []


@pytest.mark.parametrize("seed", range(4))
def test_the_way_back_from_two_easy_stretches_is_no_rise(seed: int) -> None:
    assert acted_on(with_spikes((1000, 24, -0.12), (1030, 24, -0.12), seed=seed)) == []


def test_the_evidence_lists_the_newest_attempts_and_counts_the_rest() -> None:
    assert evidence(situation()) == ""
    attempts = [attempt(number, rewind_to=5000 - number) for number in range(1, MAX_SHOWN + 3)]
    text = evidence(situation(attempts=attempts))
    assert text.startswith("None of these rollbacks got past it: 2 earlier ones; 3 steps before the onset, ")
    assert text.endswith("; 10 steps before the onset, 200 batches skipped.")


def test_an_attempt_without_a_skip_and_one_that_was_not_carried_out_say_so() -> None:
    replay = attempt(rewind_to=4990, skip_from=None, skip_to=None, executed=False)
    assert "10 steps before the onset, the same batches again (not carried out)." in evidence(
        situation(attempts=[replay])
    )


@pytest.mark.parametrize(("when", "kind"), [("hold", OrderKind.HOLD), ("continue", None)])
def test_the_run_is_held_or_goes_on_as_the_policy_says_whatever_its_name(when: str, kind: OrderKind | None) -> None:
    policy, attempts = Policy(when_structural=when), [attempt(number) for number in (1, 2)]  # type: ignore[arg-type]
    for decision in (
        give_up(policy, situation(), [], "It failed"),
        palm(policy, situation(attempts=attempts), batch_of),
    ):
        assert (decision.kind, decision.is_final) == (kind, kind is None)


AUTO = Policy(mode="auto", name="palm")  # type: ignore[arg-type]


def refused(
    refusal: Refusal | None, policy: Policy = AUTO, *, limits: Limits | None = None, then: Refusal | None = None
) -> tuple[EffectLog, list[str]]:
    """After a spike the trainer refuses the order, and each further one: the story, and the reasons of the incident."""
    engine, story = DetectionEngine(policy=policy, limits=limits), EffectLog()
    rows = rows_of(spiked(at=300))
    story.add(engine.feed(rows[:330], restorable=range(0, 330, 50)))
    for row in range(330, 345):
        active = engine.interventions.active
        if active is not None and active.state == "ordered":
            story.add(engine.order_failed(active.number, "no", refusal))
        story.add(engine.feed(rows[row : row + 1]))
    return story, story.incidents[0].reasons


def test_what_nobody_has_approved_is_proposed_to_a_person() -> None:
    story, _ = refused(Refusal.APPROVAL)
    first, second = story.interventions
    assert (first.state, second.state) == ("failed", "proposed")
    assert (second.rewind_to, second.skip_from, second.skip_to) == (first.rewind_to, first.skip_from, first.skip_to)
    assert second.reasons[-1] == "The trainer carries out only what a person has approved."


def test_beyond_a_limit_the_run_is_held_for_a_person_once() -> None:
    story, reasons = refused(Refusal.LIMITS)
    assert [(each.kind, each.state) for each in story.interventions] == [("rollback", "failed"), ("hold", "failed")]
    assert story.interventions[1].reasons[0] == "The trainer's limits do not permit it (no): a person must decide."
    assert reasons[-1] == "The policy orders nothing more for this incident, and a person must decide: no."


def test_or_it_goes_on_where_the_policy_says_so() -> None:
    story, reasons = refused(Refusal.LIMITS, Policy(mode="auto", name="palm", when_structural="continue"))  # type: ignore[arg-type]
    assert [each.state for each in story.interventions] == ["failed"]
    assert reasons[-1].startswith("The policy orders nothing more")


@pytest.mark.parametrize("refusal", [Refusal.OBSERVES, Refusal.UNTRUSTED])
def test_a_trainer_that_carries_out_nothing_gets_no_further_order(refusal: Refusal) -> None:
    story, reasons = refused(refusal)
    assert [each.state for each in story.interventions] == ["failed"]
    assert reasons[-1].endswith("a person must decide: no.")


@pytest.mark.parametrize("refusal", [None, Refusal.STALE])
def test_what_came_too_late_is_decided_anew_but_not_for_ever(refusal: Refusal | None) -> None:
    story, reasons = refused(refusal)
    assert len(story.interventions) <= 4
    assert story.interventions[1].kind == "rollback"
    assert story.interventions[-1].kind == "hold"
    assert reasons[-1].startswith("The policy orders nothing more")


def test_a_policy_stays_within_the_limits_that_the_trainer_has_reported() -> None:
    limits = Limits(max_skip=30, max_depth=90)
    story, _ = refused(None, limits=limits)
    first = story.interventions[0]
    assert first.kind == "hold" or (first.rewind_to or 0) >= 300 - 90
    paced = Policy(mode="auto", allow_lr_scale=True).within(Limits(max_skip=30, allow_lr_scale=False))  # type: ignore[arg-type]
    assert (paced.skip_min, paced.skip_max, paced.max_skip, paced.allow_lr_scale) == (30, 30, 30, False)


@pytest.mark.parametrize(("mode", "states"), [(OrderMode.APPROVE, ["proposed"]), (OrderMode.OBSERVE, [])])
def test_a_trainer_that_obeys_less_makes_the_policy_order_less(mode: OrderMode, states: list[str]) -> None:
    story, _ = refused(None, limits=Limits(mode=mode))
    assert [each.state for each in story.interventions] == states


def test_an_operators_order_beyond_the_limits_is_refused_before_it_is_sent() -> None:
    engine = DetectionEngine(policy=AUTO, limits=Limits(max_depth=100, max_skip=10))
    engine.feed(rows_of(spiked(at=500))[:300], restorable=range(0, 300, 50))
    with pytest.raises(ValueError, match="the trainer would refuse this: it discards"):
        engine.rollback(rewind_to=100)
    with pytest.raises(ValueError, match=r"the trainer would refuse this: it skips \d+ batches, and max_skip=10"):
        engine.rollback(rewind_to=250, skip_to=300)
    assert engine.rollback(rewind_to=250)
    silent = DetectionEngine(policy=AUTO, limits=Limits(mode=OrderMode.OBSERVE))
    silent.feed(rows_of(spiked(at=500))[:300], restorable=range(0, 300, 50))
    with pytest.raises(ValueError, match="carries out no orders now"):
        silent.rollback(rewind_to=250)


@pytest.mark.parametrize("name", ["adaptive", "palm"])
def test_a_hold_for_want_of_a_checkpoint_names_the_limit_that_rules_them_out(name: str) -> None:
    policy = Policy(mode="auto", name=name)  # type: ignore[arg-type]
    engine, story = DetectionEngine(policy=policy, limits=Limits(max_depth=1)), EffectLog()
    story.add(engine.feed(rows_of(spiked(at=300))[:330], restorable=range(0, 300, 50)))
    (hold,) = story.interventions
    assert hold.kind == "hold"
    assert hold.reasons[-1] == "The trainer's limit max_depth=1 rules out the checkpoints up to step 250."


def test_a_skip_that_a_limit_keeps_from_being_wider_says_so() -> None:
    engine, story = DetectionEngine(policy=AUTO, limits=Limits(max_skip=2)), EffectLog()
    story.add(engine.feed(rows_of(spiked(at=300))[:330], restorable=range(0, 300, 50)))
    assert story.interventions[0].reasons[-1] == "The trainer's limit max_skip=2 permits no wider skip."


@pytest.mark.parametrize("name", ["palm", "adaptive"])
def test_where_the_trainer_skips_no_batch_the_run_is_only_rewound(name: str) -> None:
    policy = Policy(mode="auto", name=name)  # type: ignore[arg-type]
    engine, story = DetectionEngine(policy=policy, limits=Limits(max_skip=0)), EffectLog()
    story.add(engine.feed(rows_of(spiked(at=300))[:330], restorable=range(0, 330, 50)))
    (rollback,) = story.interventions
    assert (rollback.state, rollback.skip_from, rollback.skip_to) == ("ordered", None, None)
    assert rollback.reasons[-1] == "The trainer's limit max_skip=0 permits no skip."


def test_an_operators_rollback_of_a_trainer_that_skips_no_batch_only_rewinds() -> None:
    engine = DetectionEngine(limits=Limits(max_skip=0))
    engine.feed(rows_of(spiked(at=500))[:300], restorable=range(0, 300, 50))
    with pytest.raises(ValueError, match=r"the trainer skips no batch \(max_skip=0\): order the rollback without"):
        engine.rollback(rewind_to=250, skip_to=300)
    assert engine.rollback(rewind_to=250)


def test_limits_that_shape_nothing_are_not_named() -> None:
    engine, story = DetectionEngine(policy=AUTO, limits=Limits(max_depth=250, max_skip=5000)), EffectLog()
    story.add(engine.feed(rows_of(spiked(at=300))[:330], restorable=range(0, 300, 50)))
    assert "limit" not in " ".join(story.interventions[0].reasons)


def test_a_skip_that_did_not_help_as_wide_as_the_limit_permits_is_not_tried_again() -> None:
    """Each further attempt would only skip other batches, good ones among them."""
    policy, limits = Policy(mode="auto"), Limits(max_skip=2)  # type: ignore[arg-type]
    log = Trainer(DetectionEngine(policy=policy, limits=limits), bad=range(400, 430), every=10).run()
    assert sum(each.skip_from is not None for each in log.interventions) == 1
    (hold,) = (each for each in log.interventions if each.kind == "hold")
    assert hold.reasons[0].startswith("The trainer's limit max_skip=2 permits no wider skip. One as wide did not help")
