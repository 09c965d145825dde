"""The gate: an update whose loss or gradient norm is not finite, or far too large, is skipped, on all ranks alike.

    gate = guard.gate(optimizer)
    for step, batch in guard.steps(batches, until=10_000):
        ...
        gate.step(loss, grad_norm)  # in place of optimizer.step()

The verdict stays on the device: no step waits for it. The bounds follow from the steps before, whose values reach the
host a block of steps late (`lossguard.guard.gate_bounds`).

Shapes: K steps of a block; 2 signals, loss and gradient norm; 3 columns, the signals and the verdict.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from lossguard.guard.gate_bounds import DEVIATIONS, GateBounds
from lossguard.guard.skipping import Skipping, skipping_for
from lossguard.run.collectives import Scalar, is_sharded, num_ranks
from lossguard.run.run import Run
from lossguard.spool.device_scalars import HostCopy
from lossguard.vocabulary.metrics import MAX_SKIPPED, SKIP_WINDOW

BLOCK = 8
"""Steps whose values go to the host in one copy. It is read a block later, when it has long arrived."""
LARGEST = torch.finfo(torch.float32).max
"""A bound that only infinite values exceed."""


class Gate:
    """Takes the steps of the optimizers, except those with a loss or a gradient norm that is out of bounds.

    A skipped update leaves weights and optimizer state as they were, to the last bit. Schedulers go on: the learning
    rate follows the step. `guard.gate` makes one; its state is part of the guard's checkpoints.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        *,
        run: Run,
        deviations: float = DEVIATIONS,
        tell: Callable[[str], None],
    ) -> None:
        """`tell` is called with one sentence when the cap is reached. Raises ValueError for unusable arguments."""
        if not optimizers:
            raise ValueError("gate() needs the optimizers whose steps it takes")
        self._run, self._tell = run, tell
        self._bounds = GateBounds(deviations)
        self._skipping: list[Skipping] = [skipping_for(optimizer, tell) for optimizer in optimizers]
        device = self._skipping[0].device
        self._limits_2 = torch.full((2,), LARGEST, device=device)
        self._lowest_2 = -self._limits_2
        self._block_K3 = torch.zeros(BLOCK, 3, device=device)
        # Views of each row, made once: in every step they would cost as much as all the rest.
        self._rows = [(row[0], row[1], row[:2], row[2]) for row in self._block_K3.unbind()]
        self._in_block = 0
        self._copied: HostCopy | None = None

    @property
    def num_skipped(self) -> int:
        """Updates that were skipped on the line that led here, without those of the last steps (two blocks)."""
        return self._bounds.num_skipped

    @torch.no_grad()
    def step(self, loss: Scalar, grad_norm: Scalar, *, scaler: Any = None) -> Tensor:
        """Take the step of every optimizer unless `loss` or `grad_norm` is out of bounds on any rank.

        Returns the verdict on the device, a 0-dim tensor: 1.0 if the update was skipped, else 0.0. `loss` (nats) and
        `grad_norm` (L2, before clipping) are numbers or 0-dim tensors; on several ranks they may differ. Gradients are
        neither read nor changed. `scaler`: the GradScaler through which the optimizers step; updates that it skips
        itself remain skipped. Call it on every rank, before `run.log` of the same step.
        """
        loss_slot, grad_norm_slot, values_2, skip_slot = self._rows[self._in_block]
        _put(loss_slot, loss)
        _put(grad_norm_slot, grad_norm)
        # Any comparison with NaN is false, and an infinite value is not within finite limits.
        accepted = values_2.clamp(self._lowest_2, self._limits_2).eq(values_2).all()
        skip = accepted.logical_not().float()
        if num_ranks() > 1:
            dist.all_reduce(skip, dist.ReduceOp.MAX)
        for each in self._skipping:
            each.step(skip, scaler)
        self._run.skipped = skip if self._run.skipped is None else self._run.skipped + skip
        skip_slot.copy_(skip)
        self._end_row()
        return skip

    def reset(self) -> None:
        """Learn the bounds anew, for instance after a change that was made on purpose."""
        self._flush()
        self._bounds.reset()
        self._refresh()

    def state_dict(self) -> dict[str, Any]:
        """The state in plain values, with all steps up to now; it waits for the device."""
        self._flush()
        self._refresh()
        return self._bounds.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state. An empty one is that of a new gate."""
        self._in_block, self._copied, self._run.skipped = 0, None, None
        for each in self._skipping:
            each.forget()
        self._bounds.load_state_dict(state)
        self._refresh()

    def _end_row(self) -> None:
        self._in_block += 1
        if self._in_block == BLOCK:
            self._read(self._copied)
            self._refresh()
            self._copied, self._in_block = HostCopy(self._block_K3), 0

    def _flush(self) -> None:
        """Learn from all steps so far."""
        self._read(self._copied)
        self._read(HostCopy(self._block_K3[: self._in_block]))
        self._copied, self._in_block = None, 0

    def _read(self, copied: HostCopy | None) -> None:
        for loss, grad_norm, skipped in [] if copied is None else copied.value().tolist():
            if self._bounds.observe(loss, grad_norm, skipped=bool(skipped)):
                self._tell(
                    f"the gate skipped {MAX_SKIPPED} of the last {SKIP_WINDOW} updates: it refuses only NaN and "
                    "infinity until it knows the new level"
                )

    def _refresh(self) -> None:
        limits = torch.tensor([min(limit, LARGEST) for limit in self._bounds.limits()], device="cpu")
        if self._limits_2.is_cuda:
            limits = limits.pin_memory()  # a copy from other memory would wait
        self._limits_2.copy_(limits, non_blocking=True)


def _put(slot: Tensor, value: Scalar) -> None:
    """Copy a number, or a 0-dim tensor of any type and device, into a row."""
    if not isinstance(value, Tensor):
        slot.fill_(value)
        return
    value = value.full_tensor() if is_sharded(value) else value  # type: ignore[attr-defined]
    slot.copy_(value.reshape(()), non_blocking=True)
