"""PaLM's remedy (Chowdhery et al. 2022, section 5.1): rewind about 100 steps before the spike, skip 200-500 batches.

Around it: patience for a loss that is falling back, escalation, budgets.
"""

from lossguard.vocabulary.states import IncidentKind, OrderKind
from lossguard.vocabulary.wording import plural
from monitor.detection.interventions.decision import BatchOf, Decision, Situation
from monitor.detection.interventions.rules import all_failed, budget_reason, costs, give_up, reason_to_act, wait, why
from monitor.detection.settings import Policy


def palm(policy: Policy, now: Situation, batch_of: BatchOf) -> Decision:
    """The policy of this name."""
    rewind_to, depth_reason = choose_checkpoint(policy, now)
    depth = policy.min_depth if rewind_to is None else now.step - rewind_to
    price = costs(policy, now, float(depth + policy.restart_steps))
    reason = reason_to_act(policy, now)
    if reason is None:
        return wait(now, price)
    return act(policy, now, batch_of, why(reason, price), rewind_to, depth_reason)


def act(
    policy: Policy, now: Situation, batch_of: BatchOf, reasons: list[str], rewind_to: int | None, depth_reason: str
) -> Decision:
    """Decide when there is nothing to wait for: roll back, or hold the run."""
    max_attempts = policy.attempts_per_site + (1 if policy.allow_lr_scale else 0)
    if now.attempt > max_attempts:
        return give_up(policy, now, reasons, all_failed(max_attempts))
    if now.rollbacks_used >= policy.budget_per_run:
        return Decision(OrderKind.HOLD, reasons=[*reasons, budget_reason(now)])
    if rewind_to is None:
        return Decision(OrderKind.HOLD, reasons=[*reasons, depth_reason])
    skip_from = batch_of(rewind_to)
    width = min(policy.skip_min * 2 ** (now.attempt - 1), policy.skip_max)
    skip_to = min(max(batch_of(now.detected_step) + 1, skip_from + width), skip_from + policy.skip_max)
    lr_scale = policy.lr_scale if now.attempt > policy.attempts_per_site else None
    num_skipped = plural(skip_to - skip_from, "batch", "batches")
    reasons += [depth_reason, f"Skip batches {skip_from} to {skip_to - 1} ({num_skipped})."]
    if lr_scale is not None:
        reasons.append(f"Rollbacks alone did not prevent a recurrence: the learning rate is scaled by {lr_scale:g}.")
    return Decision(OrderKind.ROLLBACK, rewind_to, skip_from, skip_to, lr_scale, reasons)


def choose_checkpoint(policy: Policy, now: Situation) -> tuple[int | None, str]:
    """The checkpoint to restore and the reason for it; None when there is none before the onset."""
    depth = policy.min_depth * 2 ** (now.attempt - 1)
    if now.kind is IncidentKind.DIVERGENCE:
        depth = max(depth, min(depth * policy.deep_factor, now.onset_step // 4))
    newest = now.onset_step - depth
    candidates = sorted(each.step for each in now.restorable if each.step <= now.onset_step)
    if tried := [each for each in now.attempts if not each.refused]:
        previous_rewind = tried[-1].rewind_to
        newest = min(newest, previous_rewind - 1)
        candidates = [step for step in candidates if step < previous_rewind]
        if not candidates:
            limit = f"step {previous_rewind}, which the previous attempt restored"
            return None, f"There is no restorable checkpoint before {limit}."
    if not candidates:
        return None, f"There is no restorable checkpoint before the onset at step {now.onset_step}."
    deep, steps = [step for step in candidates if step <= newest], plural(now.onset_step - newest, "step")
    if deep:
        return deep[-1], f"Rewind to {deep[-1]}, the newest checkpoint at least {steps} before the onset."
    oldest = candidates[0]
    return oldest, f"Rewind to {oldest}, the oldest checkpoint: none is {steps} before the onset."
