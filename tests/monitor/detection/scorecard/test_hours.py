"""What an action would have saved, term by term."""

from lossguard.vocabulary.states import IncidentKind, OrderKind, Outcome
from monitor.detection.effects import Proposal
from monitor.detection.scorecard.hours import Balance
from tests.monitor.detection.scorecard.stories import DECIDED, STILL_BAD, incident, only_site, segment, stored_run

AGAIN, LOADING, DROPPED = DECIDED + 1 - 900, 10.0, 0.5 * 20


def test_a_false_action_costs_the_steps_done_again_the_loading_and_the_skipped_batches() -> None:
    balance = only_site(stored_run(incident())).balance
    assert balance == Balance(again=AGAIN, loading=LOADING, dropped=DROPPED, lost=0)
    assert balance.saved == -(118 + 10 + 10)


def test_a_persons_rollback_lost_the_steps_that_it_threw_away() -> None:
    late = [segment(last=1999), segment(1, 900, 3000)]
    balance = only_site(stored_run(incident(**STILL_BAD), segments=late)).balance
    assert balance is not None
    assert (balance.lost, balance.saved) == (1100, 1100 - 138)


def test_a_run_that_died_lost_what_lies_after_the_checkpoint_and_nothing_for_the_night() -> None:
    dead = incident(kind=IncidentKind.NONFINITE, **STILL_BAD)
    balance = only_site(stored_run(dead, state="failed")).balance
    assert balance is not None
    assert (balance.lost, balance.saved) == (3001 - 900, 3001 - 900 - 138)


def test_a_loss_that_stayed_higher_is_charged_as_if_it_had_cost_nothing() -> None:
    balance = only_site(stored_run(incident(outcome=Outcome.DIVERGED))).balance
    assert balance is not None
    assert balance.lost == 0


def test_nothing_is_estimated_where_nothing_can_be_compared() -> None:
    hold = Proposal(OrderKind.HOLD, DECIDED, None, None, None)
    assert only_site(stored_run(incident(proposal=hold))).balance is None
    assert only_site(stored_run(incident(proposal=None))).balance is None
    assert only_site(stored_run(incident(**STILL_BAD), state="running")).balance is None
