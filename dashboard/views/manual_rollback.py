"""A rollback that a person orders: to which step, how many batches to skip, and what else to change."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import streamlit as st

from dashboard import formatting
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.operator_actions import OperatorAction
from dashboard.views import frame, operate
from db.models import Incident
from db.run_states import is_silent
from lossguard.vocabulary import wording
from lossguard.vocabulary.limits import limits_in
from lossguard.vocabulary.protocol import CAN_ROLL_BACK, CAN_SCALE_LR, CANNOT_SKIP, remedies_in
from lossguard.vocabulary.states import IncidentKind, IncidentState, RunState
from monitor.detection.interventions import run_policy
from monitor.detection.interventions.restorable import restorable_steps

MAX_SKIPPED_BATCHES = 1_000_000


def button(facts: RunFacts, incident: Incident | None, *, primary: bool = False) -> None:
    """The button for a manual rollback, or why there is none yet. Nothing if the run takes no orders."""
    if facts.run.state != RunState.RUNNING or CAN_ROLL_BACK not in facts.run.capabilities:
        return
    if not facts.run.restorable_steps:
        st.caption("Manual rollback: not possible until the run reports a checkpoint that it can restore.")
        return
    if incident is not None and incident.kind == IncidentKind.STALL and incident.state != IncidentState.CLOSED:
        st.caption("A loop that hangs takes no order: look at the process and its machine, and restart it.")
        return
    kind: Literal["primary", "secondary"] = "primary" if primary else "secondary"
    icon, available = ":material/undo:", operate.availability()
    if st.button("Roll back manually", key="manual-rollback", icon=icon, type=kind, **available):
        st.session_state.pop(operate.FAILURE, None)
        dialog(facts, incident)


def default_target(facts: RunFacts, incident: Incident | None) -> int | None:
    """The newest step to restore that is long enough before the onset; the oldest, where none is."""
    policy = run_policy.policy_of(facts.run.policy)
    onset = facts.progress.done if incident is None else incident.onset_step
    steps = [each.step for each in restorable_steps(set(facts.run.restorable_steps), facts.run.restorable_tiers)]
    return max((step for step in steps if step <= onset - policy.min_depth), default=min(steps, default=None))


def default_skip(facts: RunFacts, incident: Incident | None, target: int) -> int | None:
    """Batches from the checkpoint to past the detected step, and at least as many as the policy skips.

    None if the run cannot leave batches out.
    """
    if CANNOT_SKIP in facts.run.capabilities:
        return None
    needed = 0
    if incident is not None:
        last = cached.batch_at(facts, incident.detected_step, incident.segment)
        needed = last + 1 - cached.batch_at(facts, target)
    return min(max(run_policy.policy_of(facts.run.policy).skip_min, needed), MAX_SKIPPED_BATCHES)


@frame.dialog("Roll back manually?")
def dialog(facts: RunFacts, incident: Incident | None) -> None:
    if is_silent(facts.run, time.time()):
        st.warning(
            "The run has not reported for a while. It will roll back when it connects again.",
            icon=":material/schedule:",
        )
    restorable = restorable_steps(set(facts.run.restorable_steps), facts.run.restorable_tiers)
    labels = {}  # such as "4,980 (from memory, 0.1 s)"
    for each in reversed(restorable):
        origin = each.describe()
        labels[each.step] = f"{each.step:,} ({origin})" if origin else f"{each.step:,}"
    steps = list(labels)
    default = default_target(facts, incident)
    assert default is not None  # the button is not there without a step to restore
    target = st.selectbox(
        "Rewind to step", steps, index=steps.index(default), key="rewind-step", format_func=labels.__getitem__,
        help="Checkpoints that the trainer can restore, newest first, and how long the last load from there took.",
    )  # fmt: skip
    skip = default_skip(facts, incident, int(target))
    if skip is not None:
        skip = int(st.number_input("Batches to skip", 0, MAX_SKIPPED_BATCHES, skip, key=f"skip-batches-{target}"))
    lr_scale, remedies = _changes(facts)

    def form() -> None:
        now = cached.facts(facts.run.id) or facts
        ended = None if now.run.state == RunState.RUNNING else "The run is not running any more. Nothing was changed."
        action = rollback(now, int(target), skip, lr_scale=lr_scale, remedies=remedies)
        operate.form_until(lambda: ended, action, fields=operate.reason)

    frame.show_live(form, refresh_seconds=operate.DIALOG_REFRESH_SECONDS)  # the run goes on, and discards more


def _changes(facts: RunFacts) -> tuple[float | None, list[str]]:
    """Fields for the learning rate and the remedies, where the run has announced that it can change them."""
    lr_scale, capabilities = None, facts.run.capabilities
    if CAN_SCALE_LR in capabilities and limits_in(capabilities).allow_lr_scale:
        lr_scale = st.number_input(
            "Learning rate factor", 0.01, 1.0, None, 0.05, key="lr-scale", placeholder="as it is",
            help="The run multiplies its schedule by it from the checkpoint on, until another order sets another one.",
        )  # fmt: skip
    if not (registered := remedies_in(capabilities)):
        return lr_scale, []
    return lr_scale, st.multiselect(
        "Remedies", registered, key="remedies", help="Changes that the run has registered; each of them ends by itself."
    )


def rollback(
    facts: RunFacts,
    target: int,
    num_batches: int | None,
    *,
    lr_scale: float | None = None,
    remedies: Sequence[str] = (),
) -> OperatorAction:
    """`num_batches`: how many to skip; None for a run that cannot leave batches out."""
    done, skip, also = facts.progress.done, "", ""
    body: dict[str, Any] = {"rewind_to": target}
    if num_batches is not None:
        first = cached.batch_at(facts, target)
        body["skip_to"] = first + num_batches  # for 0 too: without it, the collector skips what the policy says
        count, batches = formatting.plural(num_batches, "batch", "batches"), wording.batches(first, first + num_batches)
        skip = f" and skip {count} ({batches})" if num_batches else ""
    if lr_scale is not None:
        body["lr_scale"] = lr_scale
        also += f" The learning rate is multiplied by {lr_scale:g}."
    if remedies:
        body["remedies"] = list(remedies)
        also += f" Remedies that are switched on: {', '.join(f'`{name}`' for name in remedies)}."
    discarded = formatting.plural(max(0, done - target), "step")
    return OperatorAction(
        label="Roll back",
        question=f"Roll back from step {done:,} to step {target:,}{skip}. This discards {discarded} of training.{also}",
        success=f"Rollback to step {target:,} ordered.",
        path=f"/runs/{facts.run.id}/rollback",
        body=body,
    )
