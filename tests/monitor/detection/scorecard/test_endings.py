"""Each ending of a site, from a small stored run."""

from typing import Any

import pytest

from lossguard.vocabulary.states import IncidentKind, InterventionState, OrderKind, Outcome
from monitor.detection import Incident
from monitor.detection.effects import Proposal
from monitor.detection.interventions.response import ACCEPTED
from monitor.detection.scorecard.endings import Balance, Ending
from tests.monitor.detection.scorecard.stories import (
    DECIDED,
    ONSET,
    STILL_BAD,
    incident,
    intervention,
    only_site,
    segment,
    stored_run,
)

WORSE: dict[str, Any] = {"outcome": Outcome.DIVERGED, "end_step": 1100}


@pytest.mark.parametrize(
    ("story", "end_step", "ending"),
    [
        ("a window after the decision, at the latest", DECIDED + 75, Ending.RECOVERED),
        ("one step later", DECIDED + 76, Ending.CONTINUED),
    ],
)
def test_a_loss_that_comes_back_recovered_within_the_window_and_continued_after_it(
    story: str, end_step: int, ending: Ending
) -> None:
    assert only_site(stored_run(incident(end_step=end_step))).ending is ending


def test_a_level_that_a_person_accepted_is_a_run_that_was_fine() -> None:
    accepted = incident(outcome=Outcome.ONGOING, reasons=["It rose.", f"{ACCEPTED} The new data is harder."])
    assert only_site(stored_run(accepted)).ending is Ending.CONTINUED


@pytest.mark.parametrize("outcome", [Outcome.ONGOING, Outcome.DIVERGED])
def test_a_loss_that_stays_higher_while_the_run_goes_on_is_worse(outcome: Outcome) -> None:
    for state in ("running", "finished", "failed", "interrupted"):
        assert only_site(stored_run(incident(outcome=outcome), state=state)).ending is Ending.WORSE


@pytest.mark.parametrize(
    ("state", "incident_", "ending"),
    [
        ("failed", incident(**STILL_BAD), Ending.DIED),
        ("interrupted", incident(**STILL_BAD), Ending.DIED),
        ("failed", incident(**WORSE), Ending.DIED),
        ("finished", incident(**WORSE), Ending.DIED),
        ("finished", incident(kind=IncidentKind.NONFINITE, **STILL_BAD), Ending.DIED),
        ("failed", incident(end_step=1140), Ending.DIED),  # back, but the loop raised within a window
        ("interrupted", incident(), Ending.RECOVERED),  # a preemption is no verdict
        ("finished", incident(), Ending.RECOVERED),
        ("finished", incident(**STILL_BAD), Ending.OPEN),  # a spike at the end of a record
        ("running", incident(**STILL_BAD), Ending.OPEN),
        ("running", incident(**WORSE), Ending.OPEN),  # within a window of its end
    ],
)
def test_a_run_that_ends_within_a_window_of_the_trouble_died_or_it_is_not_known(
    state: str, incident_: Incident, ending: Ending
) -> None:
    assert only_site(stored_run(incident_, state=state, segments=[segment(last=1150)])).ending is ending


@pytest.mark.parametrize(
    ("fork", "ending"),
    [
        (900, Ending.SAME),
        (1000, Ending.SAME),  # within min_depth, and at the onset
        (800, Ending.SAME),
        (799, Ending.OTHER),  # more than min_depth from what the policy would have restored
    ],
)
def test_a_script_that_is_started_again_before_the_onset_is_a_persons_rollback(fork: int, ending: Ending) -> None:
    restarted = [segment(last=1300), segment(1, fork, 3000)]
    assert only_site(stored_run(incident(**STILL_BAD), segments=restarted)).ending is ending


def test_a_restart_after_the_onset_answers_nothing() -> None:
    restarted = [segment(last=1300), segment(1, ONSET + 1, 3000)]
    bad = incident(kind=IncidentKind.NONFINITE, **STILL_BAD)
    assert only_site(stored_run(bad, state="failed", segments=restarted)).ending is Ending.DIED


def test_a_rewind_long_after_the_recovery_is_about_something_else() -> None:
    later = [segment(last=2500), segment(1, 500, 3000)]
    assert only_site(stored_run(incident(end_step=1040), segments=later)).ending is Ending.RECOVERED
    soon = [segment(last=1040 + 75), segment(1, 900, 3000)]
    assert only_site(stored_run(incident(end_step=1040), segments=soon)).ending is Ending.SAME
    too_late = [segment(last=1040 + 76), segment(1, 900, 3000)]
    assert only_site(stored_run(incident(end_step=1040), segments=too_late)).ending is Ending.RECOVERED


def test_a_line_that_was_left_for_something_else_did_not_end_with_the_run() -> None:
    """It failed on its later line."""
    later = [segment(last=1100), segment(1, 500, 600)]
    fine = incident(end_step=1020)
    assert only_site(stored_run(fine, state="failed", segments=later)).ending is Ending.RECOVERED


def test_a_person_who_rolls_back_where_the_policy_waits_does_something_else() -> None:
    waits = incident(proposal=None, **STILL_BAD)
    restarted = [segment(last=1300), segment(1, 900, 3000)]
    assert only_site(stored_run(waits, segments=restarted)).ending is Ending.OTHER


@pytest.mark.parametrize("state", [InterventionState.APPLIED, InterventionState.VERIFIED, InterventionState.RECURRED])
def test_an_approved_proposal_is_the_same_even_where_the_trainer_went_deeper(state: InterventionState) -> None:
    approved = intervention(state=state)
    lines = [segment(last=1050), segment(1, 300, 3000, intervention=1)]
    treated = incident(proposal=None)
    run = stored_run(treated, interventions=[approved], policy={"mode": "approve"}, segments=lines)
    assert only_site(run).ending is Ending.SAME


def test_a_rejected_proposal_leaves_the_run_to_itself() -> None:
    rejected = intervention(state=InterventionState.REJECTED)
    run = stored_run(incident(proposal=None), interventions=[rejected], policy={"mode": "approve"})
    assert only_site(run).ending is Ending.RECOVERED


def test_an_order_that_the_trainer_has_not_carried_out_is_not_known_yet() -> None:
    ordered = intervention(state=InterventionState.ORDERED)
    run = stored_run(incident(proposal=None, **STILL_BAD), interventions=[ordered], state="running")
    assert only_site(run).ending is Ending.OPEN


@pytest.mark.parametrize(
    ("state", "ending"),
    [(InterventionState.APPLIED, Ending.SAME), (InterventionState.RELEASED, Ending.SAME), ("rejected", Ending.WORSE)],
)
def test_an_approved_hold_is_the_same(state: InterventionState, ending: Ending) -> None:
    hold = intervention(kind=OrderKind.HOLD, rewind_to=None, state=InterventionState(state))
    run = stored_run(incident(proposal=None, **WORSE), interventions=[hold], policy={"mode": "approve"})
    assert only_site(run).ending is ending


def test_a_rollback_where_the_policy_would_hold_is_something_else() -> None:
    hold = Proposal(OrderKind.HOLD, DECIDED, None, None, None)
    lines = [segment(last=1050), segment(1, 900, 3000)]
    assert only_site(stored_run(incident(proposal=hold, **STILL_BAD), segments=lines)).ending is Ending.OTHER


def test_what_the_policy_did_in_auto_is_not_compared() -> None:
    done = intervention(mode="auto", state=InterventionState.VERIFIED)
    lines = [segment(last=1050), segment(1, 900, 3000, intervention=1)]
    site = only_site(stored_run(incident(proposal=None), interventions=[done], segments=lines))
    assert (site.ending, site.balance) == (Ending.IN_AUTO, None)


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
