"""Ready remedies. Each function registers one with a guard; call it before `guard.steps`, on every rank.

learning_rate   guard.lr_scale is lower for some steps, and then rises back to where it was
z_loss          a higher weight of the z-loss
clip            a lower gradient norm to clip at
moments         the optimizer forgets the moments of the tensors in which they are damaged
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lossguard.guard.controller import Controller
from lossguard.guard.remedies import LASTS
from lossguard.run.collectives import is_sharded, local_part

PALM_Z_WEIGHT = 1e-4
"""Chowdhery et al., "PaLM", 2022, section 5."""
OPT_CLIP_FACTOR = 0.3
"""Zhang et al., "OPT", 2022, section 2.5: clipping at 0.3 instead of 1.0 made the training stable."""
FIRST, SECOND = "exp_avg", "exp_avg_sq"
"""The moments of Adam and its relatives, as torch.optim names them."""
BOUND_MARGIN = 2.0
"""For rounding: float32 sums of thousands of terms stay far within it."""
SMALLEST = 1e-15
"""Moments below it are not judged: the square of such a gradient is lost in float32."""
CHUNK_ELEMENTS = 1 << 24
"""Elements that are judged at once: a large tensor needs no copies of its size."""
MAX_OUTLIER = 1e6
"""A root mean square gradient of so many times that of the rest of its tensor was never a gradient."""


@dataclass(slots=True)
class Knob:
    """A number that the loop reads in every step, and that a remedy changes. Keep it out of the checkpoints."""

    value: float


def learning_rate_remedy(guard: Controller, *, factor: float = 0.5, lasts: int = LASTS, rewarm: int = 200) -> None:
    """Multiply `guard.lr_scale` by `factor` for `lasts` steps, then raise it back in a straight line over `rewarm`.

    The loop multiplies its schedule by `guard.lr_scale` in every step. OPT-175B got past its divergences with a lower
    learning rate from an earlier checkpoint on (Zhang et al. 2022, section 2.5). Raises ValueError for a `factor`
    outside of (0, 1), or for `rewarm` below 0.
    """
    if not 0 < factor < 1 or rewarm < 0:
        raise ValueError(f"factor={factor!r} must be between 0 and 1, and rewarm={rewarm!r} not below 0 steps")
    remedies = guard.remedies

    def factor_at(step: int) -> float:
        remaining = remedies.ends.get("learning_rate", step) - step
        return 1.0 - (1.0 - factor) * min(1.0, remaining / (rewarm + 1))

    def apply() -> None:
        remedies.lr_factor = factor_at

    def revert() -> None:
        remedies.lr_factor = lambda step: 1.0

    guard.remedy("learning_rate", apply, revert, lasts=lasts + rewarm)


def z_loss_remedy(guard: Controller, weight: float, *, raised: float | None = None, lasts: int = LASTS) -> Knob:
    """A knob whose value is the `weight` of the z-loss, and `raised` while the remedy is in effect.

    `raised` is by default ten times `weight`, or PaLM's 1e-4 where there is no z-loss.
    """
    return _knob(guard, "z_loss", weight, (10 * weight or PALM_Z_WEIGHT) if raised is None else raised, lasts)


def clip_remedy(guard: Controller, max_norm: float, *, lowered: float | None = None, lasts: int = LASTS) -> Knob:
    """A knob whose value is the `max_norm` at which gradients are clipped, and `lowered` while the remedy is in effect.

    `lowered` is by default 0.3 times `max_norm`, as in OPT, or 1.0 where nothing is clipped (`max_norm` is infinite).
    """
    default = OPT_CLIP_FACTOR * max_norm if max_norm < float("inf") else 1.0
    return _knob(guard, "clip", max_norm, default if lowered is None else lowered, lasts)


def _knob(guard: Controller, name: str, normal: float, changed: float, lasts: int) -> Knob:
    knob = Knob(normal)

    def apply() -> None:
        knob.value = changed

    def revert() -> None:
        knob.value = normal

    guard.remedy(name, apply, revert, lasts=lasts)
    return knob


def moments_remedy(guard: Controller, optimizer: torch.optim.Optimizer) -> None:
    """Reset the damaged moments of `optimizer` after the restore: see `reset_damaged_moments`.

    It is in effect for one step: a resumed process repeats it only where it restores the same damaged checkpoint.
    """
    guard.remedy("moments", lambda: reset_damaged_moments(optimizer), lambda: None, lasts=1)


@torch.no_grad()
def reset_damaged_moments(optimizer: torch.optim.Optimizer) -> int:
    """Zero all moments of each parameter with a moment that no gradients can have made. Returns how many that were.

    The moments are damaged if one is not finite, a second moment is negative, a root of one is more than a million
    times the root mean square of the rest of its tensor, or a first moment is too large for its second one. Both are
    sums over the same gradients, so by the Cauchy-Schwarz inequality

        exp_avg ** 2 <= (1 - beta1) ** 2 / ((1 - beta2) * (1 - beta1 ** 2 / beta2)) * exp_avg_sq

    (compare the bounds of a step in Kingma and Ba, "Adam", 2015, section 2.1). The bound is used for moments of float32
    and above with beta1 ** 2 < beta2. The parameter's step count begins anew, too, so that the bias correction fits.

    A sharded tensor (FSDP) is judged and reset by shard, and keeps its step count, which all ranks share. Waits for the
    device once per parameter.
    """
    damaged = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            tensors = {name: each for name, each in state.items() if isinstance(each, Tensor)}
            steps = tensors.pop("step", None)
            moments = {name: local_part(each) for name, each in tensors.items() if each.is_floating_point()}
            if not _are_damaged(moments, group.get("betas")):
                continue
            damaged.append([*moments.values()])
            if steps is not None and not is_sharded(parameter):
                damaged[-1].append(steps)
    for found in damaged:  # once all are judged: a remedy that fails has changed nothing
        for each in found:
            each.zero_()
    return len(damaged)


def _are_damaged(moments: dict[str, Tensor], betas: tuple[float, ...] | None) -> bool:
    """Return True if no gradients can have made one of the `moments` of a parameter (this rank's parts)."""
    flat = {name: value.reshape(-1) for name, value in moments.items()}
    size = max((value.numel() for value in flat.values()), default=0)
    bound = _bound(flat.get(FIRST), betas)
    for begin in range(0, size, CHUNK_ELEMENTS):
        if _are_impossible({name: value[begin : begin + CHUNK_ELEMENTS] for name, value in flat.items()}, bound):
            return True
    return size > 0 and SECOND in flat and _has_outlier(flat[SECOND])


def _are_impossible(moments: dict[str, Tensor], bound: float | None) -> bool:
    if not all(bool(value.isfinite().all()) for value in moments.values()):
        return True
    second = moments.get(SECOND)
    if second is None:
        return False
    impossible = (second < 0).any()
    if bound is not None:
        largest = BOUND_MARGIN * bound * second.clamp(min=0).sqrt() + SMALLEST
        impossible |= (moments[FIRST].abs() > largest).any()
    return bool(impossible)


def _bound(first: Tensor | None, betas: tuple[float, ...] | None) -> float | None:
    """Return the largest ratio of a first moment to the root of its second one; None where that is not known."""
    if first is None or betas is None or len(betas) != 2 or first.dtype not in (torch.float32, torch.float64):
        return None
    beta1, beta2 = betas
    if not beta1**2 < beta2 < 1:
        return None
    return float((1 - beta1) / ((1 - beta2) * (1 - beta1**2 / beta2)) ** 0.5)


def _has_outlier(second: Tensor) -> bool:
    """Return True if the largest of these second moments stands out beyond measure."""
    largest, rest = second.max(), torch.zeros((), dtype=torch.float64, device=second.device)
    for chunk in torch.split(second, CHUNK_ELEMENTS):
        rest += torch.where(chunk < largest, chunk, 0).sum(dtype=torch.float64)
    return bool((rest > 0) & (largest.double() * second.numel() > MAX_OUTLIER**2 * rest))
