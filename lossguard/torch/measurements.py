"""Measurements of a step: norms by layer and of the update, the balance of experts, the next token."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lossguard.run.collectives import is_sharded, local_part
from lossguard.vocabulary.wire import MAX_TOKENS

# Gradient norms of groups of layers, which say where in the model the trouble is.

NUM_GROUPS = 6
"""Number of groups of the layers of one stack."""
WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
"""Begin the names of parameters in a wrapper (DDP, torch.compile, FSDP1)."""


class LayerGradNorms:
    """Gradient norms (L2) of the layers of a model, in a few groups.

        layer_norms = LayerGradNorms(model)
        ..
        loss.backward()
        metrics = layer_norms.measure()                       # before the gradients are clipped
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        run.log(step, loss=loss, grad_norm=grad_norm, **metrics)

    The layers of each stack (`blocks.0`, `blocks.1`, ..) make `num_groups` groups of neighbours at most; parameters
    outside of a stack are grouped by the top-level module that has them. It costs one pass over the gradients, as
    `clip_grad_norm_` does, and no host sync.
    """

    def __init__(self, model: nn.Module, *, num_groups: int = NUM_GROUPS) -> None:
        """Raises ValueError when `num_groups` is below 1."""
        if num_groups < 1:
            raise ValueError(f"num_groups={num_groups} must be at least 1")
        self._groups = grouped(dict(model.named_parameters()), num_groups)

    def measure(self) -> dict[str, Tensor]:
        """`layer_grad_norm/GROUP` for each group that has gradients: 0-dim tensors on their device.

        Gradients of sharded parameters (FSDP2) take an all-reduce for each group: then call it on every rank.
        """
        norms = {}
        for name, parameters in self._groups.items():
            gradients = [each.grad for each in parameters if each.grad is not None]
            if gradients:
                norm = nn.utils.get_total_norm(gradients)
                norms[f"layer_grad_norm/{name}"] = norm.full_tensor() if is_sharded(norm) else norm  # type: ignore[attr-defined]
        return norms


def grouped(parameters: Mapping[str, nn.Parameter], num_groups: int) -> dict[str, list[nn.Parameter]]:
    """The parameters by the name of their group, in the order of the model."""
    layers: dict[tuple[str, int | None], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters.items():
        layers[layer_of(name)].append(parameter)
    sizes: dict[str, int] = defaultdict(int)
    for stack, index in layers:
        sizes[stack] = max(sizes[stack], 0 if index is None else index + 1)
    groups: dict[str, list[nn.Parameter]] = defaultdict(list)
    for (stack, index), members in layers.items():
        groups[stack if index is None else _range_name(stack, index, sizes[stack], num_groups)] += members
    return dict(groups)


def layer_of(name: str) -> tuple[str, int | None]:
    """("blocks", 3) for "blocks.3.attention.weight"; a parameter outside of a stack has its top-level module alone."""
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper).replace(f".{wrapper}", ".")
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdecimal() and place:
            return ".".join(parts[:place]), int(part)
    return parts[0], None


def _range_name(stack: str, index: int, size: int, num_groups: int) -> str:
    """The group of a layer, such as "blocks 00-03": with leading zeros, so that names sort as the layers do."""
    width, num_groups = len(str(size - 1)), min(num_groups, size)
    group = index * num_groups // size
    first, last = -(-group * size // num_groups), -(-(group + 1) * size // num_groups) - 1
    return f"{stack} {first:0{width}}" + (f"-{last:0{width}}" if last > first else "")


# The size of an update: the root mean square of the step over that of the weights.
#
# A healthy ratio is about 1e-3 (Karpathy's rule of thumb) and changes slowly; it jumps with damaged moments, a wrong
# learning rate or gradients that are not clipped, before the loss does.

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
        self._hooks = optimizer.register_step_pre_hook(self._begin), optimizer.register_step_post_hook(self._end)

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


# The balance of a mixture of experts.
#
# Shapes: E experts, L layers.


@torch.no_grad()
def expert_loads(choices: Tensor, num_experts: int) -> Tensor:
    """float32[E]: how often each expert was chosen, from the experts' numbers that a router chose (any shape).

    Unlike torch.bincount, it does not wait for the device.
    """
    chosen = choices.detach().reshape(-1).long()
    ones = torch.ones_like(chosen, dtype=torch.float32)
    return torch.zeros(num_experts, device=chosen.device).scatter_add_(0, chosen, ones)


@torch.no_grad()
def expert_imbalance(loads: Tensor) -> dict[str, Tensor]:
    """`expert_imbalance` of loads[E] or loads[L, E]: the largest load over the mean load, minus 1, of the worst layer.

    0 is perfect balance, E - 1 means that one expert gets everything: MaxVio of Wang et al. 2024 (Auxiliary-Loss-Free
    Load Balancing Strategy for Mixture-of-Experts). Add up the loads of all micro-batches (and, with all_reduce, of all
    ranks) first: those of a few tokens are never even. A layer without tokens counts as balanced. No host sync.
    """
    loads = loads.detach().float()
    mean = loads.mean(dim=-1)
    violation = torch.where(mean > 0, loads.amax(dim=-1) / mean.clamp(min=1e-30) - 1, 0.0)
    return {"expert_imbalance": violation.max()}


# The next token: from a model's logits to the arguments of `run.probe`.
#
# Shapes: V vocabulary, K named tokens.

NUM_LIKELIEST = 64
"""Named tokens of a vocabulary that is too large to be stored completely."""
DIGITS = 6  # decimals that a float32 logarithm has


def next_token(
    logits_V: Tensor, decode: Callable[[int], str], *, target: int | None = None, entropy: bool = False
) -> dict[str, Any]:
    """The keyword arguments of `run.probe` for these logits: `run.probe(step, prompt, **next_token(logits, decode))`.

    A vocabulary of at most 256 tokens is returned completely; of a larger one the 64 likeliest tokens, and the summed
    probability of the others. From these alone, only an upper bound of the entropy follows; `entropy=True` adds the
    exact one, over the whole vocabulary. `decode` maps a token id to its text. Waits for the device. Raises ValueError
    unless the logits are a vector.
    """
    if logits_V.dim() != 1:
        raise ValueError(f"logits must be a vector (of one position), not of shape {tuple(logits_V.shape)}")
    log_p_V = logits_V.detach().float().log_softmax(dim=-1)
    V = len(log_p_V)
    top = log_p_V.topk(V if V <= MAX_TOKENS else NUM_LIKELIEST)
    ids_K, values_K = top.indices.tolist(), top.values.tolist()
    arguments: dict[str, Any] = {
        "tokens": [decode(token) for token in ids_K],
        "log_probabilities": [round(value, DIGITS) for value in values_K],
    }
    if target is not None:
        arguments |= {"target": decode(target), "target_log_probability": round(log_p_V[target].item(), DIGITS)}
    if len(ids_K) < V:
        others = log_p_V.index_fill(0, top.indices, float("-inf")).logsumexp(dim=0).item()
        arguments |= {"rest_count": V - len(ids_K), "rest_log_probability": round(others, DIGITS)}
    if entropy:
        information_V = -log_p_V.exp() * log_p_V.clamp(min=torch.finfo(log_p_V.dtype).min)  # 0 * -inf is NaN
        arguments["entropy"] = round(information_V.sum(dtype=torch.float64).clamp(min=0.0).item(), DIGITS)
    return arguments
