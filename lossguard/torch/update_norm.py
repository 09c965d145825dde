"""How far an optimizer's step moves the weights: the root mean square of the step over that of the weights.

A healthy ratio is about 1e-3 (Karpathy's rule of thumb) and changes slowly; it jumps with damaged moments, a wrong
learning rate or gradients that are not clipped, before the loss does.
"""

from typing import Any

import torch
from torch import Tensor

from lossguard.torch.dtensor import local_part

MAX_ELEMENTS = 1 << 18
"""Enough: the ratio of so many independent elements is within 0.3 % of that of all, 19 times in 20."""


class UpdateNorm:
    """Measures the steps of an optimizer, by hooks around its `step`.

        updates = UpdateNorm(optimizer)
        ..
        optimizer.step()
        run.log(step, loss=loss, **updates.take())

    It works with every optimizer, because it compares the weights before and after. Not all of them: an evenly spaced
    part of each parameter, `max_elements` in total at most (about; 1 MiB of float32 at the default, twice while the
    step runs), so the ratio of a larger model is an estimate. A step costs a few reads of that part, and no host sync.
    With sharded parameters it is the ratio of this rank's shards, without a collective.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, every: int = 1, max_elements: int = MAX_ELEMENTS) -> None:
        """`every`: measure one step in so many. Raises ValueError when a number is below 1."""
        if every < 1 or max_elements < 1:
            raise ValueError(f"every={every} and max_elements={max_elements} must be at least 1")
        self._optimizer, self._every, self._max_elements = optimizer, every, max_elements
        self._num_steps = 0
        self._before: Tensor | None = None
        self._ratio: Tensor | None = None
        hooks = optimizer.register_step_pre_hook(self._begin), optimizer.register_step_post_hook(self._end)
        self._hooks = hooks

    def take(self) -> dict[str, Tensor]:
        """`update_norm` of the last measured step, a 0-dim tensor on its device; empty if it was taken before."""
        ratio, self._ratio = self._ratio, None
        return {} if ratio is None else {"update_norm": ratio}

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def _begin(self, *_: Any) -> None:
        is_due = self._num_steps % self._every == 0
        self._num_steps += 1
        self._before = self._weights() if is_due else None

    def _end(self, *_: Any) -> None:
        before, self._before = self._before, None
        if before is not None and before.numel():
            step = self._weights() - before
            self._ratio = torch.linalg.vector_norm(step) / torch.linalg.vector_norm(before)

    @torch.no_grad()
    def _weights(self) -> Tensor:
        """float32[N]: the part that is compared, of the parameters on the first one's device."""
        groups = self._optimizer.param_groups
        parameters = [local_part(each) for group in groups for each in group["params"] if each.requires_grad]
        parameters = [each for each in parameters if each.device == parameters[0].device]
        total = sum(each.numel() for each in parameters)
        # odd: an even stride would look at the same few columns of every matrix whose width is a power of two
        stride = 1 if total <= self._max_elements else -(-total // self._max_elements) | 1
        parts = [each.reshape(-1)[::stride].float() for each in parameters]
        return torch.cat(parts) if parts else torch.empty(0)
