"""Value of a remedy: the chance that a run gets past its trouble with it, and its cost in steps.

A loop registers remedies by name (`lossguard.Guard.remedy`). The figures are judgements and not measured: there are few
published attempts. They decide in which order remedies are tried, and how many rollbacks without one come before; each
remedy that did not help is then held against the recipe's being to blame, and is not tried again at the site.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lossguard.vocabulary.states import IncidentKind
from monitor.detection.interventions.decision import Situation

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
