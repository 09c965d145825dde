"""The incidents of a run by site: what belongs to one trouble is judged once, and every incident is at one site."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from lossguard.vocabulary.states import IncidentKind, OrderKind, Outcome
from monitor.detection.effects import Incident, Intervention
from monitor.detection.interventions.decision import Decision, Situation
from monitor.detection.interventions.intervention_tracker import site_end
from monitor.detection.interventions.policies import decide
from monitor.detection.interventions.restorable import restorable_steps
from monitor.detection.settings import Policy
from monitor.detection.simulation import CHECKPOINT_STEPS

NUM_CHECKPOINTS = 64
"""Assumed checkpoints before an onset: nobody goes back further."""


class SegmentRecord(Protocol):
    """A segment whose first step is known."""

    @property
    def number(self) -> int: ...
    @property
    def fork_step(self) -> int: ...
    @property
    def last_step(self) -> int | None: ...
    @property
    def intervention(self) -> int | None:
        """The number of the intervention whose order it carries out."""


class IncidentRecord(Protocol):
    """An incident as it is stored."""

    @property
    def segment(self) -> int: ...
    @property
    def details(self) -> Mapping[str, Any]: ...


class RunRecord(Protocol):
    """A run as the scorecard sees it. No step of it is read."""

    @property
    def id(self) -> str: ...
    @property
    def project(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def state(self) -> str: ...
    @property
    def policy(self) -> Mapping[str, Any] | None: ...
    @property
    def capabilities(self) -> Sequence[Any]: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def devices(self) -> Sequence[Any]: ...
    @property
    def num_steps(self) -> int:
        """Optimizer steps of all segments."""

    @property
    def step_seconds(self) -> float | None:
        """Mean duration of a step; None: not known."""

    @property
    def segments(self) -> Sequence[SegmentRecord]:
        """Segments in the order in which they were opened."""

    @property
    def incidents(self) -> Sequence[IncidentRecord]: ...
    @property
    def interventions(self) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Action:
    """A rollback or a hold that the policy would have ordered in `auto`."""

    kind: OrderKind
    decided_step: int
    rewind_to: int | None = None
    """Step of the rollback; None: a hold, or a rollback of which no figures are known."""
    skip_from: int | None = None
    skip_to: int | None = None
    intervention: int | None = None
    """The number of the intervention that was proposed to a person; None: nobody was asked."""
    is_estimated: bool = False
    """The figures are those of the policy for a checkpoint every CHECKPOINT_STEPS, and not of the run's own."""

    @property
    def num_skipped(self) -> int:
        return 0 if self.skip_from is None or self.skip_to is None else self.skip_to - self.skip_from


def action_of(
    incident: Incident, proposed: Sequence[Intervention], policy: Policy, *, can_roll_back: bool
) -> Action | None:
    """The first thing that the policy would have done; None where it waited until the incident was over.

    `proposed`: the policy's interventions for this incident. What is stored is taken as it is. Where the run had no
    checkpoints to go back to because it only reports, the policy decides again, on the incident as it is stored and a
    checkpoint every CHECKPOINT_STEPS.
    """
    known = proposed[0] if proposed else incident.proposal
    if known is None:
        return None
    number = proposed[0].number if proposed else None
    action = Action(known.kind, known.decided_step, known.rewind_to, known.skip_from, known.skip_to, number)
    if proposed or can_roll_back or known.kind is OrderKind.ROLLBACK:
        return action
    again = _decide_again(incident, known.decided_step, policy)
    figures: dict[str, Any] = {name: getattr(again, name) for name in ("rewind_to", "skip_from", "skip_to")}
    return replace(action, kind=again.kind or known.kind, is_estimated=True, **figures)


def _decide_again(incident: Incident, step: int, policy: Policy) -> Decision:
    """The decision at `step` about an incident whose excess did not halve in the patience before it."""
    excess = incident.peak_value - incident.expected
    excess = float(excess) if np.isfinite(excess) else 0.0
    now = Situation(
        kind=incident.kind,
        onset_step=incident.onset_step,
        detected_step=incident.detected_step,
        step=step,
        non_finite=incident.kind is IncidentKind.NONFINITE,
        loss_moved=True,
        expected=incident.expected,
        scale=incident.scale,
        peak_excess=excess,
        excess=excess,
        check_excess=excess,
        check_step=step - policy.patience,
        rising_rows=policy.rise_rows,
        falls=0,
        rises=policy.patience,
        attempts=(),
        rollbacks_used=0,
        restorable=restorable_steps(range(0, incident.onset_step + 1, CHECKPOINT_STEPS)[-NUM_CHECKPOINTS:]),
        can_roll_back=True,
    )
    return decide(policy, now, int)


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Incidents of one trouble, in order, and the first thing that the policy would have done about it."""

    incidents: tuple[Incident, ...]
    segment: int
    """Segment on which the first one began."""
    interventions: tuple[Intervention, ...] = ()
    """The policy's: what it proposed to a person, or did."""
    action: Action | None = None

    @property
    def onset_step(self) -> int:
        return min(each.onset_step for each in self.incidents)

    @property
    def last(self) -> Incident:
        """The incident whose end is that of the trouble."""
        return self.incidents[-1]

    def proposed(self, number: int | None) -> bool:
        """True if the policy proposed the intervention of this number at the site."""
        return any(each.number == number for each in self.interventions)

    @property
    def decided_step(self) -> int:
        """Step of the policy's action; without an action, of the detection."""
        return self.incidents[0].detected_step if self.action is None else self.action.decided_step


def sites_of(found: Iterable[Site], policy: Policy, *, can_roll_back: bool) -> list[Site]:
    """The sites in the order of their first incidents. `found`: each incident by itself, without an action.

    An incident is at the site before it, if that is on the same segment and the incident begins before the site ends.
    The site of an action ends with the last step at which further trouble counts as a recurrence; after an incident
    that did not recover, it ends a verification window later at the earliest.
    """
    sites: list[Site] = []
    for each in sorted(found, key=lambda one: one.last.number):
        each = replace(each, action=action_of(each.last, each.interventions, policy, can_roll_back=can_roll_back))
        if sites and _is_same(sites[-1], each, policy):
            before = sites.pop()
            each = Site(
                incidents=before.incidents + each.incidents,
                segment=before.segment,
                interventions=before.interventions + each.interventions,
                action=before.action or each.action,
            )
        sites.append(each)
    return sites


def _is_same(before: Site, begun: Site, policy: Policy) -> bool:
    if before.segment != begun.segment:
        return False
    last, ends = before.last, [before.last.onset_step]
    if before.action is not None:
        decided = before.action.decided_step
        ends.append(site_end(before.onset_step, decided, decided + policy.verify_steps, before.incidents[0].kind))
    if last.outcome is not Outcome.RECOVERED:
        ends.append((last.detected_step if last.end_step is None else last.end_step) + policy.verify_steps)
    return begun.onset_step <= max(ends)
