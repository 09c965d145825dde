"""The policy of the lowest expected cost: what it tries first, and what a failed attempt teaches it."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary.states import IncidentKind, OrderKind
from monitor.detection import DetectionEngine, Policy
from monitor.detection.interventions.adaptive import adaptive
from monitor.detection.interventions.decision import Attempt, Decision
from monitor.detection.interventions.restorable import RestorableStep
from tests.monitor.detection.interventions.situations import attempt, batch_of, situation
from tests.monitor.detection.runs import EffectLog, Trainer

READY = ("learning_rate", "z_loss", "clip", "moments")
OFTEN = list(range(4000, 5001, 10))


def decide(policy: Policy | None = None, **changes: Any) -> Decision:
    return adaptive(policy or Policy(), situation(**{"restorable": OFTEN} | changes), batch_of)


def trained(policy: Policy | None = None, remedies: Sequence[str] = (), **fault: Any) -> tuple[Trainer, EffectLog]:
    """A small run with a checkpoint every 10 steps."""
    engine = DetectionEngine(policy=policy or Policy(mode="auto"), remedies=remedies)  # type: ignore[arg-type]
    trainer = Trainer(engine, every=10, **fault)
    return trainer, trainer.run()


def rollbacks(log: EffectLog) -> list[tuple[str, str]]:
    return [(each.kind.value, each.state.value) for each in log.interventions]


# The first attempt


def test_the_first_attempt_at_a_spike_is_shallow_and_skips_from_the_onset_past_the_decision() -> None:
    decision = decide()
    assert decision.kind is OrderKind.ROLLBACK
    assert (decision.rewind_to, decision.skip_from) == (4980, 5006)
    assert decision.skip_to is not None
    assert 5028 <= decision.skip_to < 5128


def test_it_goes_deeper_where_checkpoints_are_rare_and_the_deeper_one_is_surer() -> None:
    assert decide(restorable=[4000, 4995]).rewind_to == 4995
    assert decide(restorable=[4900, 4999]).rewind_to == 4900


def test_a_slow_rise_is_answered_deeper_than_a_sudden_one() -> None:
    slow = decide(kind=IncidentKind.DIVERGENCE, detected_step=5080, step=5080)
    sudden = decide()
    assert slow.rewind_to is not None
    assert sudden.rewind_to is not None
    assert slow.rewind_to < sudden.rewind_to


def test_batches_that_cost_more_make_the_skip_narrower() -> None:
    def width(batch_cost: float) -> int:
        decision = decide(Policy(batch_cost=batch_cost))
        assert decision.skip_from is not None
        assert decision.skip_to is not None
        return decision.skip_to - decision.skip_from

    assert width(0.1) > width(0.5) > width(5.0) >= 22  # from the batch before the onset's to that of the decision


def test_a_decision_shows_its_candidates_with_their_costs() -> None:
    (text,) = [reason for reason in decide().reasons if reason.startswith("Candidates")]
    assert text.startswith("Candidates and their expected costs: 4980, skip ")
    assert text.count(" steps") == 3


@pytest.mark.parametrize("damage", [{"non_finite": True}, {"peak_excess": 60.0}])
def test_batches_are_not_blamed_at_the_first_attempt_where_the_norm_left_its_band_before_a_finite_loss(
    damage: dict[str, Any],
) -> None:
    damage = damage | {"norm_first": True}
    first = decide(**damage)
    assert (first.kind, first.skip_from, first.skip_to) == (OrderKind.ROLLBACK, None, None)
    again = decide(**damage, attempts=[attempt(rewind_to=4990, skip_from=None, skip_to=None)])
    assert again.skip_from == 5006


@pytest.mark.parametrize(
    "damage",
    [
        {"non_finite": True, "loss_finite": False},
        {"non_finite": True, "loss_finite": False, "norm_first": True},
        {"non_finite": True},
        {"peak_excess": 60.0},
    ],
)
def test_batches_are_skipped_at_the_first_attempt_where_nothing_speaks_for_the_state(damage: dict[str, Any]) -> None:
    decision = decide(**damage)
    assert decision.skip_from == 5006
    assert decision.skip_to is not None
    assert 5028 <= decision.skip_to < 5128


@pytest.mark.parametrize(
    ("waited", "excess", "kind"),
    [
        (11, 1.5, None),  # too early to tell
        (12, 1.5, OrderKind.ROLLBACK),  # it does not fall
        (12, 1.0, OrderKind.ROLLBACK),  # one halving in 20 steps: 116 more until it is lost in the noise
        (12, 0.4, None),  # one in 6 steps: 27 more
    ],
)
def test_a_loss_is_waited_for_as_long_as_that_is_shorter_than_going_back(
    waited: int, excess: float, kind: OrderKind | None
) -> None:
    rows: dict[str, Any] = {"falls": waited // 2, "rises": waited - waited // 2}
    decision = decide(detected_step=5001, step=5001 + waited, check_step=5001, check_excess=1.5, excess=excess, **rows)
    assert decision.kind is kind


# What loading costs

DISK, MEMORY = RestorableStep(4980, "disk", 60.0), RestorableStep(4940, "memory", 0.1)


def test_a_deeper_checkpoint_in_memory_is_taken_before_one_on_a_slow_disk_when_that_is_cheaper() -> None:
    """A minute of loading is 120 steps of half a second, and 1 step of a minute."""
    assert decide(restorable=[MEMORY, DISK], step_seconds=0.5).rewind_to == 4940
    assert decide(restorable=[MEMORY, DISK], step_seconds=60.0).rewind_to == 4980


def test_a_load_costs_what_the_policy_says_where_it_was_not_measured() -> None:
    unmeasured = [RestorableStep(4940, "memory"), RestorableStep(4980, "disk")]
    plain = decide(restorable=[4940, 4980])
    for restorable, step_seconds in ((unmeasured, 0.5), ([MEMORY, DISK], None)):
        decision = decide(restorable=restorable, step_seconds=step_seconds)
        assert (decision.rewind_to, decision.skip_to) == (plain.rewind_to, plain.skip_to)


def test_a_load_from_memory_that_was_not_measured_costs_no_more_than_one_from_the_disk() -> None:
    """As after a restart, which measures the disk alone."""
    quick, memory = RestorableStep(4940, "disk", 0.5), RestorableStep(4980, "memory")
    costly = Policy(restart_steps=200)
    assert decide(costly, restorable=[quick, memory], step_seconds=0.5).rewind_to == 4980
    assert decide(costly, restorable=[quick, RestorableStep(4980, "tape")], step_seconds=0.5).rewind_to == 4940


def test_a_decision_says_from_where_each_candidate_is_loaded() -> None:
    reasons = decide(restorable=[4900, MEMORY, DISK], step_seconds=0.5).reasons
    assert "Rewind to 4940 (from memory, 0.1 s), 60 steps before the onset, and skip" in reasons[-2]
    assert "4980 (from disk, 60 s), skip" in reasons[-1]
    assert "4900, skip" in reasons[-1]


def test_the_time_that_a_load_takes_counts_where_waiting_is_compared_with_going_back() -> None:
    falling = dict[str, Any](detected_step=5001, step=5009, check_step=5001, excess=0.9, step_seconds=0.5)
    assert decide(**falling, restorable=[RestorableStep(4990, "memory", 0.1)]).kind is OrderKind.ROLLBACK
    assert decide(**falling, restorable=[RestorableStep(4990, "disk", 600.0)]).kind is None


# What a failure teaches


def test_trouble_that_comes_back_after_a_wide_skip_is_blamed_on_the_state() -> None:
    shallow = attempt(rewind_to=4999, skip_from=5006, skip_to=9000)
    assert (decide(attempts=[shallow]).rewind_to or 0) < 4997


def test_an_attempt_that_was_not_carried_out_teaches_nothing_but_that_its_checkpoint_is_unusable() -> None:
    failed = attempt(rewind_to=4980, executed=False)
    assert decide(attempts=[failed]).rewind_to != 4980


@pytest.mark.parametrize(("changes", "why"), [
    ({"attempts": [attempt(6, rewind_to=4980)]}, "the cause is structural"),
    ({"rollbacks_used": 20}, "used up its budget of 20"),
    ({"restorable": []}, "no restorable checkpoint before the onset"),
    ({"restorable": [5000, 5010]}, "no restorable checkpoint before the onset"),
])  # fmt: skip
def test_the_run_is_held_when_nothing_is_left_to_try(changes: dict[str, Any], why: str) -> None:
    decision = decide(**changes)
    assert decision.kind is OrderKind.HOLD
    assert why in decision.reasons[-1]


def test_the_learning_rate_is_lowered_after_the_last_attempt_where_that_is_allowed() -> None:
    decision = decide(Policy(allow_lr_scale=True), attempts=[attempt(6, rewind_to=4980)])
    assert (decision.kind, decision.lr_scale) == (OrderKind.ROLLBACK, 0.5)


# Remedies


def failed(number: int, *remedies: str, depth: int = 20, width: int = 100) -> Attempt:
    """An attempt that the trouble came back after."""
    return attempt(number, rewind_to=5000 - depth, skip_from=5006, skip_to=5006 + width, remedies=remedies)


def test_the_first_attempt_is_the_same_whatever_remedies_the_loop_has() -> None:
    damages: list[dict[str, Any]] = [{}, {"non_finite": True}]
    for damage in damages:
        assert decide(remedies=READY, signals=["loss", "log_z"], **damage) == decide(**damage)


def test_a_remedy_joins_the_rollback_once_it_is_expected_to_save_more_than_it_costs() -> None:
    attempts: list[Attempt] = []
    chosen = []
    for number in range(1, 6):
        decision = decide(remedies=READY, attempts=attempts)
        chosen.append(list(decision.remedies))
        plain = decide(attempts=attempts)
        assert (decision.rewind_to, decision.skip_from, decision.skip_to) == (
            *(plain.rewind_to, plain.skip_from, plain.skip_to),
        )
        depth, width = 20 * 3 ** (number - 1), 100 * 3 ** (number - 1)
        attempts = [*attempts, failed(number, *decision.remedies, depth=depth, width=width)]
    assert chosen[0] == []
    assert ["learning_rate"] in chosen
    names = [name for names in chosen for name in names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("signal", "remedy"), [("log_z", "z_loss"), ("grad_norm", "clip")])
def test_the_remedy_that_acts_on_what_the_incident_shows_comes_first(signal: str, remedy: str) -> None:
    attempts = [failed(1), failed(2, depth=60, width=300)]
    decision = decide(remedies=READY, attempts=attempts, signals=[signal, "loss"])
    assert list(decision.remedies) == [remedy]
    assert decision.reasons[-1].startswith(f"Switch on the remedy {remedy}. The recipe is to blame with probability 0.")


def test_damaged_moments_are_reset_where_the_checkpoint_may_be_damaged_too() -> None:
    replayed = attempt(rewind_to=4990, skip_from=None, skip_to=None)
    decision = decide(remedies=READY, non_finite=True, attempts=[replayed])
    assert list(decision.remedies) == ["moments"]


def test_a_remedy_of_the_users_own_is_tried_too() -> None:
    attempts = [failed(number, depth=20 * number, width=200 * number) for number in range(1, 5)]
    assert list(decide(remedies=["warm_batch"], attempts=attempts).remedies) == ["warm_batch"]


def test_against_a_structural_rise_only_a_remedy_is_tried_and_then_the_run_is_held() -> None:
    rise: dict[str, Any] = {"kind": IncidentKind.DIVERGENCE, "structural": True, "remedies": ["learning_rate"]}
    attempts = [failed(1), failed(2, depth=60)]
    decision = decide(attempts=attempts, **rise)
    assert (decision.kind, list(decision.remedies)) == (OrderKind.ROLLBACK, ["learning_rate"])
    decision = decide(attempts=[*attempts, failed(3, "learning_rate", depth=180)], **rise)
    assert decision.kind is OrderKind.HOLD
    assert "180 steps before the onset, 100 batches skipped, with learning_rate." in decision.reasons[-2]
    assert "A rollback would only delay a structural rise" in decision.reasons[-1]


def test_when_every_depth_has_failed_a_remedy_is_tried_from_any_of_them() -> None:
    attempts = [failed(1, depth=20, width=4000), failed(2, depth=1000, width=4000)]
    assert decide(attempts=attempts).kind is OrderKind.HOLD
    decision = decide(attempts=attempts, remedies=["clip"])
    assert (decision.kind, list(decision.remedies)) == (OrderKind.ROLLBACK, ["clip"])


# The verdict


def test_a_structural_verdict_names_what_was_tried() -> None:
    attempts = [failed(number, *(["clip"] if number == 6 else []), depth=20 * number) for number in range(1, 7)]
    decision = decide(attempts=attempts)
    assert decision.kind is OrderKind.HOLD
    evidence, verdict = decision.reasons[-2:]
    assert evidence.startswith(
        "None of these rollbacks got past it: 20 steps before the onset, 100 batches skipped; 40 steps"
    )
    assert evidence.endswith("120 steps before the onset, 100 batches skipped, with clip.")
    assert verdict.endswith("the cause is structural (the recipe or the data as a whole), so a person must decide.")


def test_where_the_policy_says_so_the_run_goes_on_with_the_verdict_and_without_an_order() -> None:
    decision = decide(Policy(when_structural="continue"), attempts=[failed(6)])  # type: ignore[arg-type]
    assert (decision.kind, decision.is_final) == (None, True)
    assert "the cause is structural" in decision.reasons[-1]
    assert decision.reasons[-1].endswith("the run goes on, as when_structural in the policy says.")


@given(
    steps=st.lists(st.integers(0, 6000), max_size=8),
    onset=st.integers(0, 5500),
    lag=st.integers(0, 400),
    waited=st.integers(0, 600),
    kind=st.sampled_from(IncidentKind),
    non_finite=st.booleans(),
    earlier=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 9000), st.booleans()), max_size=5),
    remedies=st.lists(st.sampled_from([*READY, "own"]), unique=True),
    structural=st.booleans(),
)
def test_a_rollback_goes_back_before_the_onset_and_its_skip_begins_at_or_after_the_checkpoint(
    steps: list[int],
    onset: int,
    lag: int,
    waited: int,
    kind: IncidentKind,
    non_finite: bool,
    earlier: list[Any],
    remedies: list[str],
    structural: bool,
) -> None:
    attempts = [
        attempt(
            number, rewind_to=min(back, onset), onset_step=onset, skip_from=onset, skip_to=onset + wide, executed=done
        )
        for number, (back, wide, done) in enumerate(earlier, 1)
    ]
    decision = decide(
        restorable=sorted(set(steps)),
        onset_step=onset,
        detected_step=onset + lag,
        step=onset + lag + waited,
        check_step=onset + lag,
        kind=kind,
        non_finite=non_finite,
        attempts=attempts,
        remedies=remedies,
        structural=structural,
    )
    assert decision.reasons
    assert set(decision.remedies) <= set(remedies)
    if decision.kind is OrderKind.ROLLBACK:
        assert decision.rewind_to in steps
        assert decision.rewind_to < onset
        if decision.skip_from is not None:
            assert decision.skip_to is not None
            assert batch_of(decision.rewind_to) <= decision.skip_from < decision.skip_to
            assert decision.skip_to - decision.skip_from <= Policy().max_skip


# Whole runs


def test_a_few_bad_batches_cost_less_than_forty_steps() -> None:
    trainer, log = trained(bad=range(300, 320))
    assert rollbacks(log) == [("rollback", "verified")]
    assert trainer.num_steps - trainer.steps <= 40


def test_a_damaged_weight_is_got_past_without_dropping_a_batch() -> None:
    trainer, log = trained(damaged_at=300, lag=1, norm=60.0, value=60.0)
    assert rollbacks(log) == [("rollback", "verified")]
    assert trainer.skips == []
    (rollback,) = log.interventions
    assert "the gradient norm left its band before the loss, so the state is blamed first" in " ".join(rollback.reasons)


def test_a_batch_that_makes_the_loss_nan_is_skipped_at_once() -> None:
    trainer, log = trained(bad={300}, value=float("nan"))
    assert rollbacks(log) == [("rollback", "verified")]
    ((skip_from, skip_to),) = trainer.skips
    assert skip_from <= 300 < skip_to


def test_a_batch_whose_gradient_norm_is_nan_is_skipped_when_it_is_so_again() -> None:
    """Its loss is finite, so the state is blamed first."""
    trainer, log = trained(bad={300}, value=0.0, norm=float("nan"), hurt=1)
    assert rollbacks(log) == [("rollback", "recurred"), ("rollback", "verified")]
    ((skip_from, skip_to),) = trainer.skips
    assert skip_from <= 300 < skip_to


@pytest.mark.slow
def test_a_bad_region_of_two_thousand_batches_is_passed_without_a_person() -> None:
    trainer, log = trained(bad=range(400, 2400), steps=1000)
    assert [kind for kind, _ in rollbacks(log)].count("hold") == 0
    assert rollbacks(log)[-1] == ("rollback", "verified")
    assert trainer.num_steps - trainer.steps < 1000


@pytest.mark.slow
def test_damage_that_shows_two_hundred_steps_later_is_got_past_by_going_deeper() -> None:
    trainer, log = trained(damaged_at=500, lag=200, steps=1200)
    assert rollbacks(log)[-1] == ("rollback", "verified")
    assert trainer.rewinds == sorted(trainer.rewinds, reverse=True)
    assert trainer.rewinds[-1] <= 500


def test_two_faults_fifty_steps_apart_are_two_incidents_and_neither_is_a_recurrence() -> None:
    _, log = trained(damaged_at=300, lag=1, norm=60.0, value=60.0, bad=range(350, 353))
    assert [(each.attempt, each.state.value) for each in log.interventions] == [
        (1, "verified"),
        (1, "verified"),
    ]


def test_a_recipe_that_a_remedy_cures_is_got_past_with_it() -> None:
    trainer, log = trained(remedies=READY, cursed=range(400, 403), cure="learning_rate")
    assert [(each.state.value, each.remedies) for each in log.interventions] == [
        ("recurred", []),
        ("recurred", []),
        ("verified", ["learning_rate"]),
    ]
    assert trainer.remedies == {"learning_rate"}


@pytest.mark.slow
@pytest.mark.parametrize("fault", [{"bad": range(400, 2400)}, {"damaged_at": 500, "lag": 200, "steps": 1200}])
def test_remedies_do_not_keep_the_search_from_going_deeper_and_wider(fault: dict[str, Any]) -> None:
    plain, with_remedies = trained(**fault)[0], trained(remedies=READY, **fault)[0]
    assert (with_remedies.rewinds, with_remedies.skips) == (plain.rewinds, plain.skips)


@pytest.mark.slow
@pytest.mark.parametrize(("when", "ordered"), [("hold", ["rollback"] * 3 + ["hold"]), ("continue", ["rollback"] * 6)])
def test_a_recipe_that_jumps_for_ever_ends_after_a_bounded_number_of_orders(when: str, ordered: list[str]) -> None:
    """By the attempts at a site; in a run that goes on, the jumps that recovered show that the others do."""
    policy = Policy(mode="auto", when_structural=when, budget_per_run=9, max_attempts=3)  # type: ignore[arg-type]
    _, log = trained(policy, READY, cursed=range(400, 10**6, 70), hurt=60, steps=1600)
    assert [each.kind.value for each in log.interventions] == ordered
    verdicts = [sum("the run goes on" in reason for reason in each.reasons) for each in log.incidents]
    assert set(verdicts) == ({0} if when == "hold" else {0, 1})
    later = [each for each in log.incidents if each.onset_step > log.interventions[-1].decided_step and each.end_step]
    assert len(later) == (0 if when == "hold" else 16), "each of the jumps that are left alone is an incident"


def test_trouble_that_no_depth_and_no_width_gets_past_ends_in_a_hold() -> None:
    _, log = trained(cursed=range(400, 403))
    assert log.interventions[-1].kind is OrderKind.HOLD
    assert "structural" in log.interventions[-1].reasons[-1]


def test_after_a_hard_site_the_first_attempt_at_the_next_one_may_have_a_remedy() -> None:
    orders = [decide(remedies=("z_loss",), signals=["log_z"], hard_sites=number) for number in (0, 1)]
    assert [order.remedies for order in orders] == [[], ["z_loss"]]
    assert orders[0].rewind_to == orders[1].rewind_to
