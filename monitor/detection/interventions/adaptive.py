"""The policy that minimises the expected cost: shallow and narrow where a retry is cheap, deeper and wider after it.

What is to blame is weighed in `belief`. Each attempt that failed rules out what it would have got past, so the next one
goes deeper, or skips more, or switches a remedy on.

A candidate is a restorable step with a number of batches to skip. It costs the steps that it gives up, the batches that
it drops (a batch is worth `batch_cost` steps), and, with the probability that it fails, one more attempt. It is chosen
as if the recipe were not to blame, because the search for the depth and the width must go on while remedies are tried.
Once an attempt of the run has failed, the remedy joins it that is expected to save the most steps.

Where arms were tried in the project (`lossguard.Guard.arms`), the chances of a first attempt are theirs, shrunk to
those above; with enough of them, waiting or a remedy may turn out to be cheaper than what these chances alone say.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lossguard.vocabulary.states import Arm, OrderKind, Tier
from lossguard.vocabulary.wording import plural
from monitor.detection.interventions.belief import Belief, believe, explain, looks_like_damage, untried, worth
from monitor.detection.interventions.decision import MIN_ARMS, BatchOf, Candidate, Choice, Decision, Situation, Tried
from monitor.detection.interventions.restorable import RestorableStep
from monitor.detection.interventions.rules import (
    HOPELESS_PROBABILITY,
    NO_ANSWER,
    Costs,
    all_failed,
    budget_reason,
    costs,
    give_up,
    reason_to_act,
    too_early,
    wait,
    why,
)
from monitor.detection.settings import Policy

ONSET_BATCHES = 1
"""Batches before the onset's that are blamed too: a step's update shows in the loss of the next one."""
WIDER, DEEPER = 2, 3
"""Minimum factors after a failure: of the skip to all that was skipped, or of the depth."""
SHOWN = 3
"""Candidates that a decision shows, the cheapest first."""


def adaptive(policy: Policy, now: Situation, batch_of: BatchOf) -> Decision:
    """The policy of this name."""
    belief = believe(now, batch_of)
    candidates = sorted(
        _candidates(policy, now, batch_of, belief), key=lambda each: (each.choice.cost, -each.source.step)
    )
    gains = _gains(policy, now, belief, candidates[0]) if candidates else []
    price = costs(
        policy, now, candidates[0].choice.cost if candidates else float(policy.min_depth + policy.restart_steps)
    )
    reason = reason_to_act(policy, now) or _too_slow(now, candidates[0].lost if candidates else math.inf)
    if reason is None:
        return wait(now, price)
    waiting = _waiting(policy, now, price)
    if candidates and _pays(policy, now, waiting, candidates[0].choice):
        records = _explain_records(waiting, candidates[0].choice)
        return Decision(None, reasons=[records], afterwards=f"Nothing was done. {records}")
    reasons = why(reason, price)
    if not now.data_repeats and candidates and not gains:
        return give_up(policy, now, reasons, NO_ANSWER)
    if (verdict := _structural(policy, now, bool(gains if _needs_remedy(now, belief) else candidates))) is not None:
        return give_up(policy, now, reasons, verdict)
    if now.rollbacks_used >= policy.budget_per_run:
        return Decision(OrderKind.HOLD, reasons=[*reasons, budget_reason(now)])
    if not candidates:
        return Decision(OrderKind.HOLD, reasons=[*reasons, f"{_missing(now)}."])
    best = candidates[0]
    learnt = [] if gains else _with_remedies(now, candidates)[:SHOWN]
    remedies = [name for name, gain in gains[:1] if gain > 0 or _needs_remedy(now, belief)]
    if learnt and learnt[0].choice.cost < best.choice.cost:
        reasons.append(_explain_records(learnt[0].choice, best.choice))
        best, remedies = learnt[0], [str(learnt[0].choice.remedy)]
    compared = "; ".join(each.describe() for each in candidates[:SHOWN])
    reasons += [_explain(best, now), f"Candidates and their expected costs: {compared}."]
    reasons += [explain(remedies, gains[:SHOWN], belief.recipe)] if gains else []
    lr_scale = policy.lr_scale if now.attempt > policy.max_attempts else None
    if lr_scale is not None:
        reasons.append(f"Rollbacks alone did not prevent a recurrence: the learning rate is scaled by {lr_scale:g}.")
    choices = [waiting, *(each.choice for each in (*candidates[:SHOWN], *learnt))]
    return Decision(
        *(OrderKind.ROLLBACK, best.source.step, best.choice.skip_from, best.choice.skip_to, lr_scale, reasons),
        remedies=remedies,
        choices=sorted(choices, key=lambda each: each.cost),
    )


def _waiting(policy: Policy, now: Situation, price: Costs) -> Choice:
    """Waiting on, as a treatment, where the rules of patience are over: if it fails, a verification passes until then.

    The steps until the loss is back trained nothing; there are as many again as there were so far.
    """
    back = float(max(now.step - now.detected_step, policy.patience))
    return Choice(
        arm=Arm.WAIT,
        prior=min(price.recovery_probability, HOPELESS_PROBABILITY),
        tried=Tried() if now.attempts or now.non_finite else now.records.tried(now.kind, Arm.WAIT),
        certain=back,
        failing=policy.verify_steps + price.roll_back - back,
    )


def _pays(policy: Policy, now: Situation, waiting: Choice, best: Choice) -> bool:
    """True if the arms that were tried speak for waiting on, for as long as they have waited."""
    is_in_time = now.step - now.detected_step <= policy.patience + policy.verify_steps
    return is_in_time and waiting.tried.num >= MIN_ARMS and waiting.cost < best.cost


def _explain_records(choice: Choice, other: Choice) -> str:
    what = f"With the remedy {choice.remedy}" if choice.remedy else "With waiting"
    return (
        f"{what}, {choice.tried.num_past} of {plural(choice.tried.num, 'arm')} that were tried got past: "
        f"it is expected to cost {choice.cost:.0f} steps, and without it {other.cost:.0f}."
    )


def _with_remedies(now: Situation, candidates: list[Candidate]) -> list[Candidate]:
    """The candidates with each remedy of which arms were tried, the cheapest first."""
    damaged, found = looks_like_damage(now), []
    for each in [] if now.attempts else candidates:
        choice = each.choice
        for name in now.remedies:
            arm, where = Arm.REWIND_WITH_REMEDY, {"tier": choice.tier, "remedy": name}
            tried = now.records.tried(now.kind, arm, depth=choice.depth, **where)
            if tried.num >= MIN_ARMS:
                certain = choice.certain + worth(name, now, damaged).cost
                changes: dict[str, Any] = {"arm": arm, "remedy": name, "prior": choice.chance, "tried": tried}
                found.append(replace(each, choice=replace(choice, certain=certain, **changes)))
    return sorted(found, key=lambda each: each.choice.cost)


def _too_slow(now: Situation, roll_back: float) -> str | None:
    """Return why waiting for a falling loss takes longer than going back, which costs `roll_back` steps; or None.

    The excess is taken to go on halving as fast as it did since the detection, until it is lost in the noise.
    """
    waited = now.step - now.detected_step
    if not now.loss_moved or waited == 0 or too_early(now) is not None or not 0 < now.scale < now.excess:
        return None
    halvings = math.log2(max(now.peak_excess, now.excess) / now.excess)
    remaining = waited * math.log2(now.excess / now.scale) / halvings if halvings > 0 else math.inf
    if remaining <= roll_back:
        return None
    since = f"in the {plural(waited, 'step')} since the detection"
    back = f"going back costs {plural(round(roll_back), 'step')} of training"
    if halvings < 0.1:
        stayed = f"The loss stayed {now.excess:.3g} nats above the expected one {since}"
        return f"{stayed}: it is not falling back, and {back}."
    fell = f"The excess over the expected loss fell from {now.peak_excess:.3g} to {now.excess:.3g} nats {since}"
    return f"{fell}: the rest would take {plural(round(remaining), 'more step')}, and {back}."


def _structural(policy: Policy, now: Situation, has_candidates: bool) -> str | None:
    """The verdict that no rollback and no remedy helps, as a clause, or None."""
    max_attempts = policy.max_attempts + (1 if policy.allow_lr_scale else 0)
    if now.attempt > max_attempts:
        return (
            f"{all_failed(max_attempts)}, at every depth and width that the policy may try: "
            "the cause is structural (the recipe or the data as a whole)"
        )
    if has_candidates:
        return None
    if now.structural:
        return "A rollback would only delay a structural rise"
    if now.attempts and now.rollbacks_used < policy.budget_per_run:
        return (
            f"{_missing(now)} that the earlier attempts have not ruled out: the cause lies before all of them or is "
            "structural"
        )
    return None


def _missing(now: Situation) -> str:
    return f"There is no restorable checkpoint before the onset at step {now.onset_step}"


def _explain(best: Candidate, now: Situation) -> str:
    depth, choice = now.onset_step - best.source.step, best.choice
    origin = best.source.describe()
    rewind = f"Rewind to {best.source.step}{origin and f' ({origin})'}, {plural(depth, 'step')} before the onset"
    if choice.skip_from is None or choice.skip_to is None:
        blamed = "the gradient norm left its band before the loss, so the state is blamed first"
        unable = "this run cannot leave batches out" if now.data_repeats else "the data does not repeat"
        why = blamed if now.can_skip else unable
        return f"{rewind}, and use the same batches again: {why}."
    num_skipped = plural(choice.num_skipped, "batch", "batches")
    return f"{rewind}, and skip batches {choice.skip_from} to {choice.skip_to - 1} ({num_skipped})."


def _candidates(policy: Policy, now: Situation, batch_of: BatchOf, belief: Belief) -> Iterator[Candidate]:
    """Return all restorable steps that no failed attempt rules out, each with the best width for it."""
    failing = _cost_of_failure(policy, now, belief)
    min_depth = _min_depth(now, belief)
    first_trouble = batch_of(now.onset_step - ONSET_BATCHES)
    known_end = batch_of(now.step) + 1
    unreadable = {each.rewind_to for each in now.attempts if not each.executed and not each.refused}
    for source in now.restorable:
        depth = now.depth(source)
        if depth < min_depth or source.step in unreadable:
            continue
        lost = now.step - source.step + _restart(policy, now, source)
        extra = (
            None if _replays_first(now) or not now.can_skip else _extra_batches(policy, belief, now, failing + depth)
        )
        skip_from = skip_to = None
        dropped = 0.0
        if extra is not None:
            skip_from = max(batch_of(source.step), first_trouble)
            skip_to = min(known_end + extra, skip_from + policy.max_skip)
            dropped = policy.batch_cost * (skip_to - skip_from)
        arm = Arm.REWIND if extra is None else Arm.REWIND_AND_SKIP
        choice = Choice(
            arm=arm,
            rewind_to=source.step,
            skip_from=skip_from,
            skip_to=skip_to,
            tier=source.tier,
            depth=depth,
            prior=belief.success(depth, extra),
            tried=Tried() if now.attempts else now.records.tried(now.kind, arm, tier=source.tier, depth=depth),
            certain=lost + dropped,
            failing=failing + depth,
        )
        yield Candidate(source=source, choice=choice, lost=lost)


def _restart(policy: Policy, now: Situation, source: RestorableStep) -> float:
    """Return the cost of loading a checkpoint in steps of training, as measured or as the policy says.

    From memory it costs no more than from anywhere else: a load reads and verifies the same state.
    """
    measured = now.load_steps(source)
    if measured is not None:
        return measured
    others = map(now.load_steps, now.restorable) if source.tier == Tier.MEMORY else ()
    return min([policy.restart_steps, *(steps for steps in others if steps is not None)])


def _gains(policy: Policy, now: Situation, belief: Belief, best: Candidate) -> list[tuple[str, float]]:
    """The remedies that were not tried yet, and the steps that each is expected to save with this candidate, less its
    cost; the best first. None before an attempt of the run has failed."""
    if not belief.recipe:
        return []
    damaged, depth = looks_like_damage(now), best.choice.depth
    failing = _cost_of_failure(policy, now, belief) + depth
    worths = [(name, worth(name, now, damaged)) for name in untried(now)]
    gains = [(name, belief.helps(each, depth) * failing - each.cost) for name, each in worths]
    return sorted(gains, key=lambda gain: -gain[1])


def _needs_remedy(now: Situation, belief: Belief) -> bool:
    """True if a rollback without a remedy is pointless: the rise is structural, the data does not repeat, or all depths
    have failed."""
    return now.structural or not now.data_repeats or _is_exhausted(now, belief)


def _is_exhausted(now: Situation, belief: Belief) -> bool:
    """True if the state is likelier to blame than batches, and no step is left that is deeper than what failed."""
    deepest = _deepest(now)
    return belief.batches < 0.5 and 0 < deepest <= belief.failed_depth


def _replays_first(now: Situation) -> bool:
    """Damaged numbers are blamed on the state alone, at first, where the evidence speaks for it.

    That is a gradient norm that left its band before the loss did, and a loss that is finite. Batches whose own loss is
    not finite, or jumps first, do it again.
    """
    speaks_for_state = now.norm_first and now.loss_finite
    return looks_like_damage(now) and speaks_for_state and not any(each.executed for each in now.attempts)


def _deepest(now: Situation) -> int:
    return max(map(now.depth, now.restorable), default=0)


def _min_depth(now: Situation, belief: Belief) -> int:
    """Return the minimum depth. If the state is more likely to blame, it grows by a factor: the search ends soon."""
    blames_batches = now.can_skip and belief.batches >= 0.5
    if belief.failed_depth == 0 or blames_batches or (belief.recipe and _is_exhausted(now, belief)):
        return 1
    deepest = _deepest(now)
    return max(belief.failed_depth + 1, min(DEEPER * belief.failed_depth, deepest))


def _extra_batches(policy: Policy, belief: Belief, now: Situation, failing: float) -> int:
    """The number of batches beyond the known ones at which one more is worth as much as it costs.

    The derivative of batch_cost * e + p(batches) * w / (e + w) * failing is zero there.
    """
    scale = belief.width_scale
    extra = math.sqrt(belief.batches * failing * scale / policy.batch_cost) - scale
    if belief.batches >= 0.5 and any(each.executed and each.num_skipped for each in now.attempts):
        extra = max(extra, WIDER * sum(each.num_skipped for each in now.attempts))
    return max(0, round(extra))


def _cost_of_failure(policy: Policy, now: Situation, belief: Belief) -> float:
    """Steps, besides those from the checkpoint to the onset: the trouble is noticed again, and a surer attempt follows.

    The surer attempt is as deep as PaLM's, or ten times the scale of the lag, skips what PaLM's skips, and loads from
    the slowest tier: old checkpoints lie there.
    """
    restart = max((_restart(policy, now, each) for each in now.restorable), default=policy.restart_steps)
    surer = max(policy.min_depth, 10 * belief.lag_scale) + policy.batch_cost * policy.skip_min + restart
    return policy.patience + surer * 2.0 ** len(now.attempts)
