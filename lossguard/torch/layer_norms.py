"""Gradient norms of groups of layers: where in the model the trouble is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lossguard.torch.dtensor import is_sharded

NUM_GROUPS = 6
"""Of the layers of one stack."""
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
    parts: Sequence[str] = _unwrapped(name).split(".")
    for place, part in enumerate(parts):
        if part.isdecimal() and place:
            return ".".join(parts[:place]), int(part)
    return parts[0], None


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper).replace(f".{wrapper}", ".")
    return name


def _range_name(stack: str, index: int, size: int, num_groups: int) -> str:
    """The group of a layer, such as "blocks 00-03": with leading zeros, so that names sort as the layers do."""
    width, num_groups = len(str(size - 1)), min(num_groups, size)
    group = index * num_groups // size
    first, last = -(-group * size // num_groups), -(-(group + 1) * size // num_groups) - 1
    return f"{stack} {first:0{width}}" + (f"-{last:0{width}}" if last > first else "")
