"""Cause of an incident by Bayes: what the incident shows, and what the attempts that failed at its site rule out.

Three causes are weighed against each other. Either some batches are bad, from just before the onset to W batches past
the decision; or the state was damaged L steps before the onset. Both lengths are unknown, and are taken to be as long
as scale-free quantities are: P(L > d) = s / (d + s) and P(W > e) = w / (e + w) (the Lomax distribution with shape 1).
The scales come from the incident: s from how long its onset took to show, w from how many batches the trouble lasted.
Or the recipe is to blame: training is unstable here, whatever the batches and the state. Then only a remedy helps. Each
attempt that failed rules out what it would have got past (Bayes), so the next one goes deeper, or skips more, or
switches a remedy on.

A loop registers remedies by name (`lossguard.Guard.remedy`). What each is worth is judged and not measured: there are
few published attempts. It decides in which order remedies are tried, and how many rollbacks without one come before;
each remedy that did not help is then held against the recipe's being to blame, and is not tried again at the site.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lossguard.vocabulary.states import IncidentKind
from monitor.detection.interventions.decision import BatchOf, Situation

FITS, MAY_HELP = 0.5, 0.1
"""The chance of a remedy that acts on what the incident shows, and of any other.

OPT-175B went on after some of its divergences with a lower learning rate, and after others had to lower it again (Zhang
et al. 2022, section 2.5): about one in two.
"""
UNKNOWN_COST = 100.0
"""Steps; of a remedy that only the loop knows: as much as PaLM's rollback."""


@dataclass(frozen=True, slots=True)
class Worth:
    """The chances of a remedy, by the cause of the trouble, and its cost."""

    recipe: float = 0.0
    """The chance that it gets past, if the recipe is to blame."""
    state: float = 0.0
    """Chance if the state is to blame and the restored one is damaged too."""
    cost: float = 0.0
    """Cost in steps of training."""


def worth(name: str, now: Situation, looks_damaged: bool) -> Worth:
    """The worth of the remedy `name` in this situation. Of the ready ones (`lossguard.torch`) more is known."""
    match name:
        case "learning_rate":  # 2,000 steps at half the rate: about a tenth of their progress
            sudden = now.kind is IncidentKind.NONFINITE
            return Worth(recipe=MAY_HELP if sudden else FITS, cost=200.0)
        case "z_loss":  # against logits that grow (PaLM, section 5); the loss term itself is small
            return Worth(recipe=FITS if "log_z" in now.signals else MAY_HELP, cost=20.0)
        case "clip":  # against gradients that jump (OPT, section 2.5); large gradients count for less
            return Worth(recipe=FITS if "grad_norm" in now.signals else MAY_HELP, cost=40.0)
        case "moments":  # of damaged tensors only: those warm up again
            return Worth(state=FITS if looks_damaged else MAY_HELP, cost=10.0)
    return Worth(recipe=MAY_HELP, cost=UNKNOWN_COST)


def untried(now: Situation) -> Sequence[str]:
    """The remedies of the loop that no attempt at the site had."""
    tried = {name for each in now.attempts if each.executed for name in each.remedies}
    return [name for name in now.remedies if name not in tried]


def explain(chosen: Sequence[str], gains: Sequence[tuple[str, float]], recipe: float) -> str:
    """A reason of a decision. `gains`: remedies, and the steps that each is expected to save, less its cost;
    `recipe`: the probability that the recipe is to blame."""
    switch = f"Switch on the remedy {', '.join(chosen)}." if chosen else "No remedy is worth its cost yet."
    shown = ", ".join(f"{name} {gain:.0f}" for name, gain in gains)
    return (
        f"{switch} The recipe is to blame with probability {recipe:.2f}; "
        f"remedies and the steps that each is expected to save, less its cost: {shown}."
    )


PRIOR_BATCHES, PRIOR_BATCHES_DAMAGE = 0.6, 0.2
"""The probability, before any attempt, that batches are to blame; the same where the numbers seem to be damaged."""
PRIOR_RECIPE = 1 / 22
"""The probability, before any attempt, that the recipe is to blame, by the rule of succession: the largest PaLM got
past all of its roughly 20 spikes by rollbacks alone (Chowdhery et al. 2022, section 5.1)."""
PRIOR_SITES = 2
"""Sites of the run itself that weigh as much as this prior: runs differ more than the incidents of one run."""
MIN_LAG_STEPS = 2.0
"""Scale of the lag between damage and an onset that shows at once: an update shows in the loss of the next step."""
DIVERGENCE_LAGS = 2.0
"""A slow rise begins further back than its onset by more: its scale is multiplied by this."""
MIN_WIDTH_BATCHES = 8.0
"""Scale of the bad batches that are still to come, for trouble that has only begun."""
DAMAGE_ROWS, DAMAGE_RATIO = 2, 20.0
"""Rows within which a loss rises, and factor of its level, that look like damaged numbers: text that a confident
model gets wrong costs up to about ten times its level."""
MIN_DAMAGE_LEVEL = 0.1
"""Nats; of a loss near zero, or below it, the level says nothing."""


@dataclass(frozen=True, slots=True)
class Belief:
    """Probabilities of the causes, by the incident and by the attempts that failed at its site."""

    batches: float
    """The probability that batches are to blame, and not the state alone, unless the recipe is."""
    recipe: float
    """The probability that the recipe is to blame: 0 before an attempt of the run has failed (unless only a remedy can
    be tried), and where no remedy is left to try, because then it makes no difference to what is done."""
    lag_scale: float
    """Steps."""
    width_scale: float
    """Batches."""
    failed_depth: int
    """Steps before the onset that were not deep enough, if the state is to blame."""

    def success(self, depth: int, extra: int | None) -> float:
        """The probability, unless the recipe is to blame, of getting past with this depth, and so many batches beyond
        those known; None: no skip."""
        deep = 1 - _beyond(depth, self.lag_scale)
        wide = 0.0 if extra is None else 1 - _beyond(extra, self.width_scale)
        return self.batches * deep * wide + (1 - self.batches) * self.still_deep(depth)

    def still_deep(self, depth: int) -> float:
        """Return the probability that the state at this depth before the onset is sound, given the failed attempts."""
        return max(1 - _beyond(depth, self.lag_scale) / _beyond(self.failed_depth, self.lag_scale), 0.0)

    def helps(self, remedy: Worth, depth: int) -> float:
        """The probability that it is this remedy which gets past, with this depth."""
        damaged = (1 - self.batches) * (1 - self.still_deep(depth))
        return self.recipe * remedy.recipe + (1 - self.recipe) * damaged * remedy.state


def _beyond(length: int, scale: float) -> float:
    """The probability that an unknown length is larger than this one."""
    return scale / (length + scale)


def believe(now: Situation, batch_of: BatchOf) -> Belief:
    """Prior knowledge, the incident's own evidence, and the attempts that failed."""
    lag = (now.detected_step - now.onset_step) * (DIVERGENCE_LAGS if now.kind is IncidentKind.DIVERGENCE else 1.0)
    lag_scale = MIN_LAG_STEPS + max(lag, 0.0)
    trouble = batch_of(now.step) - batch_of(now.onset_step)
    width_scale = max(MIN_WIDTH_BATCHES, float(trouble))
    damaged = looks_like_damage(now)
    batches = PRIOR_BATCHES_DAMAGE if damaged else PRIOR_BATCHES
    # before any attempt at this site, the earlier ones of the run count
    prior = (PRIOR_RECIPE * PRIOR_SITES + now.hard_sites) / (PRIOR_SITES + now.hard_sites + now.easy_sites)
    failed_depth = 0
    state, recipe = 1 - batches, prior / (1 - prior)
    for attempt in now.attempts:
        if not attempt.executed:
            continue
        failed_depth = max(failed_depth, attempt.onset_step - attempt.rewind_to)
        batches *= _beyond(attempt.num_skipped, width_scale)
        state *= _beyond(failed_depth, lag_scale)
        for name in attempt.remedies:
            recipe *= 1 - worth(name, now, damaged).recipe
            state *= 1 - worth(name, now, damaged).state
    if (failed_depth == 0 and now.hard_sites == 0 and now.data_repeats) or not untried(now):
        recipe = 0.0
    blamed = 1.0 if now.structural else recipe / (recipe + batches + state)
    return Belief(batches / (batches + state), blamed, lag_scale, width_scale, failed_depth)


def looks_like_damage(now: Situation) -> bool:
    """True if the numbers themselves seem to be damaged: not finite, or far above anything that text does at once."""
    at_once = now.detected_step - now.onset_step <= DAMAGE_ROWS
    return now.non_finite or (at_once and now.peak_excess > DAMAGE_RATIO * max(now.expected, MIN_DAMAGE_LEVEL))
