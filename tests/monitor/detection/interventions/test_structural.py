import pytest

from lossguard.vocabulary.states import OrderKind
from monitor.detection import Policy
from monitor.detection.interventions.palm import palm
from monitor.detection.interventions.structural import MAX_SHOWN, evidence, give_up
from tests.monitor.detection.interventions.situations import attempt, batch_of, situation


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
