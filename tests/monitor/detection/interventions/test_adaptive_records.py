"""Lessons of tried arms for `adaptive`: its chances, and when to wait or to switch a remedy on."""

from typing import Any

import pytest

from lossguard.vocabulary.states import Arm, IncidentKind, OrderKind
from monitor.detection import Policy
from monitor.detection.interventions.adaptive import adaptive
from monitor.detection.interventions.decision import Decision, Records, Tried
from monitor.detection.interventions.palm import palm
from monitor.detection.interventions.restorable import RestorableStep
from tests.monitor.detection.interventions.situations import attempt, batch_of, situation

MEMORY = [RestorableStep(step, "memory", 0.1) for step in range(4900, 5001, 10)]


def arms(arm: Arm, num: int, num_past: int, **values: Any) -> list[dict[str, Any]]:
    known = {"kind": "loss_spike", "arm": arm.value, "tier": "memory", "depth": 20, "attempt": 1, "remedy": None}
    return [known | {"got_past": number < num_past} | values for number in range(num)]


def decide(*tried: list[dict[str, Any]], **changes: Any) -> Decision:
    records = Records.of([each for some in tried for each in some])
    given: dict[str, Any] = {"restorable": MEMORY, "records": records, "remedies": ("clip", "z_loss")}
    return adaptive(Policy(), situation(**given | changes), batch_of)


def test_without_arms_a_chance_is_the_prior_to_the_last_bit() -> None:
    assert Tried().chance(0.1 + 0.2) == 0.1 + 0.2
    assert all(each.chance == each.prior for each in decide().choices)


def test_arms_of_other_kinds_tiers_and_depths_change_nothing() -> None:
    others: list[dict[str, Any]] = [
        {"kind": "divergence"},
        {"tier": "disk"},
        {"depth": 300},
        {"attempt": 2},
        {"depth": None},
    ]
    taught = decide(*(arms(Arm.REWIND_AND_SKIP, 9, 0, **other) for other in others))
    assert taught == decide()


def test_few_arms_move_a_chance_a_little_and_many_far() -> None:
    def chance(num: int) -> float:
        decision = decide(arms(Arm.REWIND_AND_SKIP, num, 0), restorable=[RestorableStep(4980, "memory", 0.1)])
        return max(each.chance for each in decision.choices if each.arm is Arm.REWIND_AND_SKIP)

    assert chance(0) > chance(1) > chance(4) > chance(40) < 0.1


def test_where_shallow_rollbacks_failed_the_first_attempt_goes_deeper() -> None:
    """A class of depth ends at 25 steps before the onset."""
    plain, taught = decide(), decide(arms(Arm.REWIND_AND_SKIP, 30, 1, depth=20))
    assert plain.rewind_to == 4980
    assert taught.rewind_to is not None
    assert taught.rewind_to < 4975


def test_where_waiting_got_past_it_waits_on() -> None:
    decision = decide(arms(Arm.WAIT, 12, 12))
    assert decision.kind is None
    assert "With waiting, 12 of 12 arms that were tried got past" in decision.reasons[0]
    assert decide(arms(Arm.WAIT, 12, 3)).kind is OrderKind.ROLLBACK


@pytest.mark.parametrize(
    "changes",
    [{"non_finite": True}, {"attempts": (attempt(),)}, {"kind": IncidentKind.DIVERGENCE}, {"detected_step": 4900}],
)
def test_it_never_waits_for_a_nan_at_a_hard_site_for_another_kind_or_without_end(changes: dict[str, Any]) -> None:
    assert decide(arms(Arm.WAIT, 12, 12), **changes).kind is OrderKind.ROLLBACK


def test_two_arms_are_too_few_to_wait() -> None:
    assert decide(arms(Arm.WAIT, 2, 2)).kind is OrderKind.ROLLBACK


def test_a_remedy_whose_arms_got_past_joins_the_first_rollback() -> None:
    failed = arms(Arm.REWIND_AND_SKIP, 20, 2)
    decision = decide(failed, arms(Arm.REWIND_WITH_REMEDY, 10, 10, remedy="z_loss"))
    assert decision.remedies == ["z_loss"]
    assert any("With the remedy z_loss, 10 of 10 arms that were tried got past" in each for each in decision.reasons)
    assert decide(failed).remedies == []
    assert decide(failed, arms(Arm.REWIND_WITH_REMEDY, 10, 10, remedy="unknown")).remedies == []


def test_the_choices_of_a_decision_are_in_the_order_of_their_costs_with_waiting_among_them() -> None:
    choices = decide(arms(Arm.REWIND_AND_SKIP, 4, 3)).choices
    assert [each.cost for each in choices] == sorted(each.cost for each in choices)
    assert [each.arm for each in choices].count(Arm.WAIT) == 1
    stored = choices[0].to_dict()
    assert (stored["arm"], stored["tier"], stored["tried"], stored["past"]) == ("rewind_and_skip", "memory", 4, 3)


def test_palm_does_not_go_by_arms() -> None:
    taught = situation(restorable=MEMORY, records=Records.of(arms(Arm.WAIT, 12, 12)))
    assert palm(Policy(), taught, batch_of) == palm(Policy(), situation(restorable=MEMORY), batch_of)
