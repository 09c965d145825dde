"""The policy: facts in, decision and reasons out."""

from typing import Any

import pytest

from lossguard.states import IncidentKind, OrderKind
from monitor.detection import Policy
from monitor.detection.interventions.policy import Situation, costs, palm

CHECKPOINTS = list(range(0, 5001, 50))


def situation(**changes: Any) -> Situation:
    """A spike at step 5000 whose loss has not fallen in a span of patience."""
    facts: dict[str, Any] = {
        "kind": IncidentKind.LOSS_SPIKE,
        "onset_step": 5000,
        "detected_step": 5001,
        "step": 5020,
        "non_finite": False,
        "loss_moved": True,
        "excess": 1.4,
        "check_excess": 1.5,
        "check_step": 5002,
        "rising_rows": 0,
        "falls": 9,
        "rises": 9,
        "attempt": 1,
        "rollbacks_used": 0,
        "previous_rewind": None,
        "restorable": CHECKPOINTS,
        "can_roll_back": True,
    }
    return Situation(**facts | changes)


def decide(policy: Policy | None = None, **changes: Any) -> Any:
    return palm(policy or Policy(), situation(**changes), lambda step: step + 7)


def test_a_spike_that_stays_is_rolled_back_100_steps_and_200_batches() -> None:
    decision = decide()
    assert (decision.kind, decision.rewind_to) == (OrderKind.ROLLBACK, 4900)
    assert (decision.skip_from, decision.skip_to) == (4907, 5107)


def test_a_loss_that_halves_its_excess_is_waited_for() -> None:
    decision = decide(excess=0.7)
    assert decision.kind is None
    assert decision.reasons[0] == "The loss may still fall back."
    assert decision.reasons[1].startswith("Waiting is expected to cost")


def test_a_non_finite_signal_is_acted_on_at_once() -> None:
    assert decide(non_finite=True, step=5001, check_step=5001, loss_moved=False).kind is OrderKind.ROLLBACK


def test_a_continued_rise_is_acted_on_at_once() -> None:
    assert decide(rising_rows=5, step=5004, check_step=5004).kind is OrderKind.ROLLBACK


def test_a_precursor_alone_is_only_a_warning() -> None:
    decision = decide(loss_moved=False)
    assert decision.kind is None
    assert "save a checkpoint now" in decision.reasons[0]


def test_a_divergence_goes_deep_but_never_more_than_a_quarter_of_the_run() -> None:
    assert decide(kind=IncidentKind.DIVERGENCE).rewind_to == 4000
    assert decide(kind=IncidentKind.DIVERGENCE, onset_step=1200).rewind_to == 900
    assert decide(kind=IncidentKind.DIVERGENCE, onset_step=300).rewind_to == 200


def test_the_next_attempt_is_deeper_and_wider() -> None:
    decision = decide(attempt=2, previous_rewind=4900)
    assert decision.rewind_to == 4800
    assert decision.skip_to - decision.skip_from == 400


def test_the_skip_is_never_wider_than_skip_max() -> None:
    decision = decide(attempt=2, onset_step=5000, detected_step=5000, restorable=[1000])
    assert decision.skip_to - decision.skip_from == 500


def test_after_the_last_attempt_the_run_is_held() -> None:
    assert decide(attempt=3).kind is OrderKind.HOLD
    allowed = decide(Policy(allow_lr_scale=True), attempt=3)
    assert (allowed.kind, allowed.lr_scale) == (OrderKind.ROLLBACK, 0.5)
    assert decide(Policy(allow_lr_scale=True), attempt=4).kind is OrderKind.HOLD


def test_a_run_that_only_reports_records_what_would_be_done() -> None:
    decision = decide(can_roll_back=False)
    assert (decision.kind, decision.unavailable) == (None, OrderKind.ROLLBACK)
    assert decision.reasons == decide().reasons
    assert decide(can_roll_back=False, attempt=3).unavailable is OrderKind.HOLD


def test_a_run_without_a_checkpoint_before_the_onset_is_held() -> None:
    decision = decide(restorable=[5010])
    assert decision.kind is OrderKind.HOLD
    assert "no restorable checkpoint before the onset" in decision.reasons[-1]


def test_the_oldest_checkpoint_is_used_where_none_is_deep_enough() -> None:
    assert decide(restorable=[4950, 5000]).rewind_to == 4950


def test_waiting_costs_more_the_less_likely_the_loss_recovers() -> None:
    falling = costs(Policy(), situation(falls=18, rises=0), 4900)
    rising = costs(Policy(), situation(falls=0, rises=18), 4900)
    assert falling.wait < falling.roll_back < rising.wait
    assert costs(Policy(), situation(non_finite=True), 4900).recovery_probability == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("min_depth", 0), ("skip_max", 100), ("mode", "bold"), ("mode", 3), ("mode", []), ("lr_scale", 0.0)],
        *[("budget_per_run", -1), ("restart_steps", -1), ("patience", 0)],
        *[("skip_min", 200.5), ("patience", True), ("patience", "9"), ("patience", None), ("skip_max", float("inf"))],
        *[("min_depth", float("nan")), ("lr_scale", float("nan")), ("lr_scale", False), ("lr_scale", "0.5")],
        *[("allow_lr_scale", "no"), ("allow_lr_scale", 1), ("skip_max", 10**400)],
    ],
)
def test_an_invalid_value_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}") as raised:
        Policy(**{field: value})
    assert str(value) in str(raised.value) or field == "skip_max"


def test_the_next_attempt_goes_strictly_below_the_last_one_or_the_run_is_held() -> None:
    assert decide(attempt=2, previous_rewind=4950, restorable=[4900, 4950]).rewind_to == 4900
    decision = decide(attempt=2, previous_rewind=4950, restorable=[4950, 5000])
    assert decision.kind is OrderKind.HOLD
    assert "no restorable checkpoint before step 4950" in decision.reasons[-1]


def test_a_policy_survives_its_dictionary_and_refuses_unknown_names() -> None:
    policy = Policy(mode="auto", patience=5)  # type: ignore[arg-type]
    assert Policy.from_dict(policy.to_dict()) == policy
    with pytest.raises(ValueError, match="unknown policy settings: speed"):
        Policy.from_dict({"speed": 1})
