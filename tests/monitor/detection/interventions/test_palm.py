"""PaLM's remedy: facts in, decision and reasons out."""

from typing import Any

from lossguard.vocabulary.states import IncidentKind, OrderKind
from monitor.detection import Policy
from monitor.detection.interventions.palm import palm
from tests.monitor.detection.interventions.situations import attempt, batch_of, situation


def decide(policy: Policy | None = None, **changes: Any) -> Any:
    return palm(policy or Policy(), situation(**changes), batch_of)


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
    decision = decide(attempts=[attempt()])
    assert decision.rewind_to == 4800
    assert decision.skip_to - decision.skip_from == 400


def test_the_skip_is_never_wider_than_skip_max() -> None:
    decision = decide(attempts=[attempt(rewind_to=2000)], detected_step=5000, restorable=[1000])
    assert decision.skip_to - decision.skip_from == 500


def test_after_the_last_attempt_the_run_is_held() -> None:
    assert decide(attempts=[attempt(2)]).kind is OrderKind.HOLD
    allowed = decide(Policy(allow_lr_scale=True), attempts=[attempt(2)])
    assert (allowed.kind, allowed.lr_scale) == (OrderKind.ROLLBACK, 0.5)
    assert decide(Policy(allow_lr_scale=True), attempts=[attempt(3)]).kind is OrderKind.HOLD


def test_the_hold_says_how_many_attempts_there_were() -> None:
    assert decide(attempts=[attempt(2)]).reasons[-1].startswith("All 2 attempts at this site failed")
    only = decide(Policy(attempts_per_site=1), attempts=[attempt(1)])
    assert only.reasons[-1].startswith("The only attempt at this site failed")


def test_a_run_without_a_checkpoint_before_the_onset_is_held() -> None:
    decision = decide(restorable=[5010])
    assert decision.kind is OrderKind.HOLD
    assert "no restorable checkpoint before the onset" in decision.reasons[-1]


def test_the_oldest_checkpoint_is_used_where_none_is_deep_enough() -> None:
    assert decide(restorable=[4950, 5000]).rewind_to == 4950


def test_the_next_attempt_goes_strictly_below_the_last_one_or_the_run_is_held() -> None:
    assert decide(attempts=[attempt(rewind_to=4950)], restorable=[4900, 4950]).rewind_to == 4900
    decision = decide(attempts=[attempt(rewind_to=4950)], restorable=[4950, 5000])
    assert decision.kind is OrderKind.HOLD
    assert "no restorable checkpoint before step 4950" in decision.reasons[-1]
