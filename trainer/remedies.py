"""The remedies that the trainer registers: the ready ones of the SDK."""

import math
from dataclasses import dataclass

import lossguard
from lossguard.torch import Knob, clip_remedy, learning_rate_remedy, moments_remedy, z_loss_remedy
from trainer.components import Components
from trainer.config import Recipe

MAX_STEPS = 2000
"""For which a remedy is in effect; in short runs it is a tenth of the run."""
REWARM_FRACTION = 0.1
"""Fraction of these steps, after them, in which the learning rate rises back."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Knobs:
    """Hyperparameters that a remedy may change; read at every step."""

    z_weight: Knob
    clip_norm: Knob
    """Infinite: nothing is clipped."""


def register_remedies(guard: lossguard.Guard, recipe: Recipe, components: Components) -> Knobs:
    """Register them all; the learning rate goes by `guard.lr_scale`."""
    lasts = max(min(MAX_STEPS, recipe.steps // 10), 1)
    learning_rate_remedy(guard, lasts=lasts, rewarm=round(REWARM_FRACTION * lasts))
    moments_remedy(guard, components.optimizer)
    return Knobs(
        z_weight=z_loss_remedy(guard, recipe.optimizer.z_weight, lasts=lasts),
        clip_norm=clip_remedy(guard, recipe.optimizer.clip_norm or math.inf, lasts=lasts),
    )
