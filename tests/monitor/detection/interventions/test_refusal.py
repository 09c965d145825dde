"""A trainer refuses an order: a person is asked, and the policy does not order the same again and again."""

import pytest

from lossguard import Limits
from lossguard.vocabulary.states import OrderMode, Refusal
from monitor.detection import DetectionEngine, Policy
from tests.monitor.detection.runs import EffectLog, Trainer, rows_of, spiked

AUTO = Policy(mode="auto", name="palm")  # type: ignore[arg-type]


def refused(
    refusal: Refusal | None, policy: Policy = AUTO, *, limits: Limits | None = None, then: Refusal | None = None
) -> tuple[EffectLog, list[str]]:
    """After a spike the trainer refuses the order, and each further one: the story, and the reasons of the incident."""
    engine, story = DetectionEngine(policy=policy, limits=limits), EffectLog()
    rows = rows_of(spiked(at=300))
    story.add(engine.feed(rows[:330], restorable=range(0, 330, 50)))
    for row in range(330, 345):
        active = engine.response.interventions.active
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
