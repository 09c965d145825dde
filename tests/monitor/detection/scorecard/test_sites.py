"""Which incidents are one trouble, and that none is counted twice or lost."""

from hypothesis import given
from hypothesis import strategies as st

from db.scorecard import StoredIncident
from lossguard.vocabulary.states import IncidentKind, OrderKind, Outcome
from monitor.detection import Policy
from monitor.detection.effects import Proposal
from monitor.detection.scorecard.scored_run import score_run
from monitor.detection.scorecard.sites import Action, Site, action_of, sites_of
from monitor.detection.scorecard.totals import total
from tests.monitor.detection.runs import detected, spiked
from tests.monitor.detection.scorecard.stories import DECIDED, incident, intervention, stored_run

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


def numbers(*found: Site) -> list[list[int]]:
    sites = sites_of(found, Policy(), can_roll_back=True)
    return [[each.number for each in site.incidents] for site in sites]


def found(number: int, onset: int, *, segment: int = 0, **changes: object) -> Site:
    detected = {"detected_step": onset + 1, "end_step": onset + 10}
    return Site(incidents=(incident(number, onset_step=onset, **detected | changes),), segment=segment)


def test_what_recurs_where_the_policy_would_have_acted_is_the_same_trouble() -> None:
    first = found(1, 1000)  # the decision is at 1017: the site ends at 1034
    assert DECIDED == 1017
    assert numbers(first, found(2, 1034)) == [[1, 2]]
    assert numbers(first, found(2, 1035)) == [[1], [2]]
    assert numbers(first, found(2, 1034, segment=1)) == [[1], [2]]


def test_where_the_policy_waited_a_recovery_ends_the_trouble() -> None:
    assert numbers(found(1, 1000, proposal=None), found(2, 1012)) == [[1], [2]]


def test_what_follows_an_incident_without_recovery_within_a_window_is_the_same_trouble() -> None:
    first = found(1, 1000, proposal=None, outcome=Outcome.DIVERGED, end_step=1010)
    assert numbers(first, found(2, 1085)) == [[1, 2]]
    assert numbers(first, found(2, 1086)) == [[1], [2]]


def test_a_site_has_the_first_action_and_the_last_end() -> None:
    first = found(1, 1000, proposal=None, outcome=Outcome.DIVERGED)
    (site,) = sites_of([first, found(2, 1012, end_step=1400)], Policy(), can_roll_back=True)
    assert site.action is not None
    assert (site.onset_step, site.action.rewind_to, site.last.end_step) == (1000, 900, 1400)


incidents = st.lists(
    st.builds(
        lambda onset, length, kind, outcome, acts, segment: (
            segment,
            {"onset_step": onset, "detected_step": onset + 2, "end_step": None if length is None else onset + length}
            | {"kind": kind, "outcome": outcome}
            | ({} if acts else {"proposal": None}),
        ),
        st.integers(0, 3000),
        st.none() | st.integers(2, 300),
        st.sampled_from(IncidentKind),
        st.sampled_from(Outcome),
        st.booleans(),
        st.integers(0, 3),
    ),
    max_size=12,
)


@given(incidents, st.sampled_from(["running", "finished", "interrupted", "failed"]))
def test_every_incident_is_counted_exactly_once(drawn: list[tuple[int, dict[str, object]]], state: str) -> None:
    run = stored_run(*(incident(k, **changes) for k, (_, changes) in enumerate(drawn, start=1)), state=state)
    for record, (segment, _) in zip(list(run.incidents), drawn, strict=True):
        run.incidents[run.incidents.index(record)] = StoredIncident(segment, record.details)
    scored = score_run(run)
    seen = [each.number for site in scored.sites for each in site.site.incidents]
    assert len(set(seen)) == len(seen)
    assert len(seen) + scored.num_advisories + scored.num_unreadable == len(drawn)
    totals = total([scored])
    assert totals.incidents == len(seen)
    assert sum(totals.acted.values()) + sum(totals.waited.values()) == totals.sites == len(scored.sites)
    assert totals.false_actions + totals.undecided_actions <= totals.actions
    assert totals.agreed <= totals.compared <= totals.sites
