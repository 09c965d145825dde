"""The random numbers from which a loader draws the order of its epochs, so that an epoch can be begun again.

Most samplers compute their order from a seed and the epoch: then there is nothing to keep. `DataLoader(shuffle=True)`
draws it from a generator of its own if it was given one, and else from torch's, as the loop does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from lossguard.torch.generators import generators, restore_generators
from lossguard.torch.loaders import draws_base_seed, own_generators


class EpochOrders:
    """The generators as they were before the order of an epoch was drawn from them, for each such epoch."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._drawn: dict[int, dict[str, Any]] = {}

    @contextmanager
    def drawing(self, epoch: int, *, is_due: bool) -> Iterator[None]:
        """A context for making an iterator and reading its first batch: the order is the one that it was before.

        `is_due`: the loop begins the epoch now, and its generators lose what the loader draws; otherwise nothing.
        """
        before, own = generators(), self._own_states()
        drawn = self._drawn.get(epoch)
        if drawn is not None:
            self._set_own_states(drawn["own"])
            restore_generators(before | _from_plain(drawn["process"]))
        yield
        if drawn is None:
            from_torch = draws_base_seed(self._loader, epoch) and getattr(self._loader, "generator", None) is None
            changed = changed_generators(before, base_seed=from_torch)
            if own or changed:
                process = _to_plain(before, changed | {"torch"} if changed else set())
                self._drawn[epoch] = {"own": own, "process": process}
        if not is_due or (drawn is not None and drawn["process"]):
            restore_generators(before)

    def state_dict(self) -> dict[str, Any]:
        """The state, in plain values."""
        return {"drawn": {str(epoch): dict(each) for epoch, each in self._drawn.items()}, "own": self._own_states()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state; what is known of later epochs stays, because their order was seen."""
        self._drawn |= {int(epoch): dict(each) for epoch, each in state["drawn"].items()}
        self._set_own_states(state["own"])

    def _own_states(self) -> list[str]:
        return [_hex(generator.get_state()) for generator in own_generators(self._loader)]

    def _set_own_states(self, states: list[str]) -> None:
        for generator, state in zip(own_generators(self._loader), states, strict=False):
            generator.set_state(_unhex(state))


def changed_generators(before: Mapping[str, Any], *, base_seed: bool = False) -> set[str]:
    """Which generators of the process have changed since `before`; not torch's if only a `base_seed` was drawn."""
    after = generators()
    changed = {name for name in ("python", "numpy") if name in before and before[name] != after[name]}
    expected = [before["torch"], *([_after_base_seed(before["torch"])] if base_seed else [])]
    return changed if any(torch.equal(state, after["torch"]) for state in expected) else changed | {"torch"}


def _after_base_seed(state: torch.Tensor) -> torch.Tensor:
    """The state after an iterator of a DataLoader has drawn the seed of its workers."""
    generator = torch.Generator()
    generator.set_state(state)
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    return generator.get_state()


def _to_plain(states: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: _hex(states[name]) if name == "torch" else states[name] for name in sorted(names)}


def _from_plain(states: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _unhex(state) if name == "torch" else state for name, state in states.items()}


def _hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _unhex(state: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(state)), dtype=torch.uint8)
