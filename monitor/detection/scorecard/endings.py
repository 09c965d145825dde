"""Outcome of a site, as the store shows it: an ending, and the steps that an action would have saved or lost.

The rules are tried in the order of `ending_of`; docs/scorecard.md has them as a table, with every term of the steps.
A *window* is the policy's `verify_steps`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from lossguard.vocabulary.states import KINDS, IncidentState, InterventionState, OrderKind, Outcome, RunState
from monitor.detection.interventions.response import ACCEPTED
from monitor.detection.scorecard.sites import SegmentRecord, Site
from monitor.detection.settings import Mode, Policy


class Ending(StrEnum):
    """The ending of a site."""

    IN_AUTO = "in_auto"  # the policy acted itself, in auto mode: nothing to compare
    SAME = "same"  # a person did the same, or let the policy do it
    OTHER = "other"  # a person rolled back elsewhere, or where the policy waited
    RECOVERED = "recovered"  # nobody acted, and the loss was back on its trend within a window
    CONTINUED = "continued"  # nobody acted, and the loss was back later, or a person accepted the level
    WORSE = "worse"  # nobody acted, and the run went on with a loss that did not come back
    DIED = "died"  # nobody acted, and the run ended in the trouble or within a window of it
    OPEN = "open"  # the record ends before it shows


NOT_NEEDED = (Ending.RECOVERED, Ending.CONTINUED)
"""Endings at which an action counts as a false one. Back in band is not unharmed: that is not measured."""
BY_PERSON = (Ending.SAME, Ending.OTHER)


@dataclass(frozen=True, slots=True)
class After:
    """Course of a site's line after the site."""

    last_step: int
    """The last step that it reached."""
    restored: int | None = None
    """The step at or before the onset that the run went back to from there; None: it did not."""
    intervention: int | None = None
    """The number of the intervention that ordered this; None: the script was started again, or rewound by itself."""
    is_live: bool = True
    """The line is the run's newest, so that the run's end is its end; False: the run left it, for another reason."""


def after(site: Site, segments: Sequence[SegmentRecord], policy: Policy) -> After:
    """Follow the line to its end, or to the rewind that answered the site. `segments` in the order of their opening.

    A rewind answers the site if it goes back to the onset or before it, and leaves from the trouble: from before its
    end, or from at most a window after it. A process that is started again from there counts too: the store does not
    tell a person who restarts a run from a crash after which it is restarted.
    """
    at = next((k for k, each in enumerate(segments) if each.number == site.segment), None)
    reached = site.last.detected_step
    if at is None:
        return After(reached)
    last_step = segments[at].last_step
    reached = reached if last_step is None else last_step
    for each in segments[at + 1 :]:
        if each.fork_step <= site.onset_step:
            # the trouble may go on to the end of the line
            trouble_ends = site.last.end_step if _is_fine(site) and site.last.end_step is not None else reached
            if site.proposed(each.intervention) or reached <= trouble_ends + policy.verify_steps:
                return After(reached, each.fork_step, each.intervention)
            return After(reached, is_live=False)
        reached = reached if each.last_step is None else each.last_step
    return After(reached)


def _is_fine(site: Site) -> bool:
    """The trouble is over: the loss came back, or a person accepted its level."""
    return site.last.state is IncidentState.CLOSED and (site.last.outcome is Outcome.RECOVERED or _is_accepted(site))


def _is_accepted(site: Site) -> bool:
    return any(reason.startswith(ACCEPTED) for reason in site.last.reasons)


def ending_of(site: Site, then: After, policy: Policy, *, run_state: str) -> Ending:
    """The ending of a site."""
    asked = (InterventionState.PROPOSED, InterventionState.REJECTED)
    if any(each.mode == Mode.AUTO and each.state not in asked for each in site.interventions):
        return Ending.IN_AUTO
    action = site.action
    if then.restored is not None:
        if action is None or action.kind is not OrderKind.ROLLBACK:
            return Ending.OTHER
        is_near = action.rewind_to is not None and abs(then.restored - action.rewind_to) <= policy.min_depth
        return Ending.SAME if is_near or site.proposed(then.intervention) else Ending.OTHER
    held = (InterventionState.APPLIED, InterventionState.RELEASED)
    if any(each.kind is OrderKind.HOLD and each.state in held for each in site.interventions):
        return Ending.SAME
    return _left_alone(site, then, policy, RunState(run_state) if then.is_live else None)


def _left_alone(site: Site, then: After, policy: Policy, ended_as: RunState | None) -> Ending:
    """Nobody acted. `ended_as`: the state of the run at the end of this line; None: the run left it much later."""
    last = site.last
    in_window = last.end_step is None or then.last_step - last.end_step < policy.verify_steps
    if _is_fine(site):
        if ended_as is RunState.FAILED and in_window:
            return Ending.DIED
        at_once = last.end_step is not None and last.end_step <= site.decided_step + policy.verify_steps
        return Ending.RECOVERED if at_once and not _is_accepted(site) else Ending.CONTINUED
    if not in_window or ended_as is None:
        return Ending.WORSE
    if ended_as is RunState.RUNNING:
        return Ending.OPEN
    lost = ended_as is not RunState.FINISHED or KINDS[last.kind].is_deadly or last.outcome is Outcome.DIVERGED
    return Ending.DIED if lost else Ending.OPEN


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """Balance of an action, in steps of training."""

    again: int
    """Steps that the rollback would have thrown away: from the restored one to the one of the decision."""
    loading: float
    """Cost of loading the checkpoint (`restart_steps`)."""
    dropped: float
    """Cost of the skipped batches (`batch_cost` each)."""
    lost: int
    """Actual loss: the steps that a person's rollback, or the end of the run, threw away."""

    @property
    def saved(self) -> float:
        """Below 0 where the action would have cost more than it saved."""
        return self.lost - (self.again + self.loading + self.dropped)


def balance(site: Site, ending: Ending, then: After, policy: Policy) -> Balance | None:
    """Return the balance; None without a comparison: no rollback, no figures of it, or an ending that is not known.

    A run that died is taken to be restarted at once from the same checkpoint: how long nobody noticed is not known.
    Where the run went on, nothing was lost, not even if its loss stayed higher.
    """
    action = site.action
    if action is None or action.kind is not OrderKind.ROLLBACK or action.rewind_to is None:
        return None
    if ending in (Ending.OPEN, Ending.IN_AUTO):
        return None
    lost = 0
    if then.restored is not None:
        lost = then.last_step + 1 - then.restored
    elif ending is Ending.DIED:
        lost = max(then.last_step, action.decided_step) + 1 - action.rewind_to
    return Balance(
        again=action.decided_step + 1 - action.rewind_to,
        loading=float(policy.restart_steps),
        dropped=policy.batch_cost * action.num_skipped,
        lost=lost,
    )
