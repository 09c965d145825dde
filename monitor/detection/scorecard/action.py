"""The policy's action on a stored incident, had it decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lossguard.vocabulary.states import IncidentKind, OrderKind
from monitor.detection.effects import Incident, Intervention
from monitor.detection.interventions.decision import Decision, Situation
from monitor.detection.interventions.policies import decide
from monitor.detection.interventions.restorable import restorable_steps
from monitor.detection.settings import Policy
from monitor.detection.simulation import CHECKPOINT_STEPS

NUM_CHECKPOINTS = 64
"""Assumed checkpoints before an onset: nobody goes back further."""


@dataclass(frozen=True, kw_only=True, slots=True)
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
    if proposed:
        first = proposed[0]
        figures = {name: getattr(first, name) for name in ("decided_step", "rewind_to", "skip_from", "skip_to")}
        return Action(kind=first.kind, intervention=first.number, **figures)
    known = incident.proposal
    if known is None:
        return None
    if can_roll_back or known.kind is OrderKind.ROLLBACK:
        figures = {name: getattr(known, name) for name in ("decided_step", "rewind_to", "skip_from", "skip_to")}
        return Action(kind=known.kind, **figures)
    return _estimate(incident, known.decided_step, known.kind, policy)


def _estimate(incident: Incident, step: int, kind: OrderKind, policy: Policy) -> Action:
    decision = _decide_again(incident, step, policy)
    if decision.kind is None:
        return Action(kind=kind, decided_step=step, is_estimated=True)
    figures: Mapping[str, int | None] = {
        name: getattr(decision, name) for name in ("rewind_to", "skip_from", "skip_to")
    }
    return Action(kind=decision.kind, decided_step=step, is_estimated=True, **figures)


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
