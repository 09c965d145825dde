"""Modules as checkpoints hold them: under the names that they have without torch.compile and DistributedDataParallel.

So a checkpoint fits the model whether it, or a part of it, is compiled or not, and on any number of ranks.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from lossguard.checkpoints.state import Stateful

WRAPPERS = {"OptimizedModule": "_orig_mod", "DistributedDataParallel": "module"}
"""Classes of modules that add a name to the keys of what they wrap (torch.compile makes the first), and that name."""
WHOLE_STATE_MISSING = {"FullyShardedDataParallel", "DeepSpeedEngine", "DeepSpeedEngineWrapper"}
"""Wrappers whose model and optimizer do not have their own whole state."""


def unwrapped(name: str, instance: Stateful) -> Stateful:
    """Return the part of the object `name` that a checkpoint saves. Raises ValueError if it has no whole state."""
    parts = instance.modules() if isinstance(instance, nn.Module) else [instance]
    kinds = {kind.__name__ for part in parts for kind in type(part).__mro__}
    if unsupported := WHOLE_STATE_MISSING.intersection(kinds):
        raise ValueError(
            f"{name} is a {unsupported.pop()}, which is not supported: shard it with torch's fully_shard, or use DDP"
        )
    return UnwrappedModule(instance) if isinstance(instance, nn.Module) else instance


class UnwrappedModule:
    """The state of a module, whose parts may be wrapped, also later on."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def state_dict(self) -> Any:
        """The state of the module under the names without wrappers."""
        state = self.module.state_dict()
        plain = self._plain_names()
        return state if plain is None else _renamed(state, plain)

    def load_state_dict(self, state: Any) -> Any:
        """Restore a state into the module as it is wrapped now."""
        plain = self._plain_names()
        if plain is None:
            return self.module.load_state_dict(state)
        now = self.module.state_dict()
        names = {plain(name): name for name in [*getattr(now, "_metadata", ()), *now]}  # of what is inside comes last
        return self.module.load_state_dict(_renamed(state, lambda name: names.get(name, name)))

    def _plain_names(self) -> Callable[[str], str] | None:
        """Gives the name without wrappers; None where nothing is wrapped."""
        added = set()
        for path, part in self.module.named_modules(remove_duplicate=False):
            if inner := next((WRAPPERS[kind.__name__] for kind in type(part).__mro__ if kind.__name__ in WRAPPERS), ""):
                added.add(f"{path}.{inner}".lstrip("."))

        def plain(name: str) -> str:
            parts = name.split(".")
            return ".".join(part for i, part in enumerate(parts) if ".".join(parts[: i + 1]) not in added)

        return plain if added else None


def _renamed(state: Any, name: Callable[[str], str]) -> Any:
    """The state with other names, and with the versions of the modules that it carries."""
    renamed = type(state)((name(key), value) for key, value in state.items())
    if hasattr(state, "_metadata"):
        renamed._metadata = {name(key): version for key, version in state._metadata.items()}
    return renamed
