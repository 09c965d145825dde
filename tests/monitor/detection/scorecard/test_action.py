"""What the policy would have done, of records old and new."""

from lossguard.vocabulary.states import OrderKind
from monitor.detection import Policy
from monitor.detection.effects import Proposal
from monitor.detection.scorecard.action import Action, action_of
from tests.monitor.detection.runs import detected, spiked
from tests.monitor.detection.scorecard.stories import DECIDED, incident, intervention

NO_CHECKPOINTS = Proposal(OrderKind.HOLD, DECIDED, None, None, None)


def test_a_stored_proposal_is_taken_as_it_is() -> None:
    action = action_of(incident(), [], Policy(), can_roll_back=True)
    assert action == Action(kind=OrderKind.ROLLBACK, decided_step=DECIDED, rewind_to=900, skip_from=999, skip_to=1019)


def test_so_is_what_was_proposed_to_a_person() -> None:
    proposed = [intervention(4), intervention(5, rewind_to=100)]
    action = action_of(incident(proposal=None), proposed, Policy(), can_roll_back=True)
    assert action is not None
    assert (action.intervention, action.rewind_to, action.num_skipped) == (4, 900, 20)


def test_where_nothing_was_proposed_the_policy_waits() -> None:
    assert action_of(incident(proposal=None, reasons=["It rose."]), [], Policy(), can_roll_back=True) is None


def test_a_run_that_only_reports_is_given_checkpoints_where_it_would_be_held_for_want_of_one() -> None:
    held = incident(proposal=NO_CHECKPOINTS)
    action = action_of(held, [], Policy(), can_roll_back=False)
    assert action is not None
    assert (action.kind, action.rewind_to, action.is_estimated) == (OrderKind.ROLLBACK, 900, True)
    hold = action_of(held, [], Policy(), can_roll_back=True)
    assert hold is not None
    assert (hold.kind, hold.is_estimated) == (OrderKind.HOLD, False)


def test_an_unknown_policy_leaves_the_figures_open() -> None:
    action = action_of(incident(proposal=NO_CHECKPOINTS), [], Policy(name="gone"), can_roll_back=False)
    assert action == Action(kind=OrderKind.HOLD, decided_step=DECIDED, is_estimated=True)


def test_the_detection_stores_what_it_would_do_as_figures() -> None:
    (observed,) = detected(spiked(at=300)).incidents
    assert observed.proposal is not None
    assert (observed.proposal.kind, observed.proposal.rewind_to) == (OrderKind.ROLLBACK, 250)
    again = action_of(observed, [], Policy(), can_roll_back=True)
    assert again is not None
    assert again.decided_step == observed.proposal.decided_step
