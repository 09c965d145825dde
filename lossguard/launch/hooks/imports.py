"""The import hook: when a tracker's module has been imported, its functions are wrapped."""

import sys

TYPE_CHECKING = False  # without the import of typing, as every process of the command runs this module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

HOOKS = {
    "wandb.sdk.wandb_run": "wandb",
    "wandb.sdk.lib.noop_run": "wandb",
    "wandb.sdk.wandb_init": "wandb",
    "torch.utils.tensorboard.writer": "tensorboard",
    "tensorboardX.writer": "tensorboard",
    "mlflow.tracking._tracking_service.client": "mlflow",
    "mlflow.tracking.client": "mlflow",
    "trackio.run": "trackio",
    "transformers.trainer": "transformers",
}
"""Module of a tracker -> the module here whose `hook(module, journal)` wraps its functions."""


class HookFinder:
    """Finds nothing itself: it asks the other finders, and wraps the loader of a module that is to be hooked.

    A finder and a loader by their methods alone: importing importlib.abc would take longer than all of this.
    """

    def __init__(self) -> None:
        self._searching: set[str] = set()

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if fullname not in HOOKS or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            for finder in sys.meta_path:
                find: Any = getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = None if finder is self or find is None else find(fullname, path, target)
                if spec is not None:
                    if hasattr(spec.loader, "exec_module"):
                        spec.loader = _HookingLoader(spec.loader)  # type: ignore[assignment]
                    return spec
        finally:
            self._searching.discard(fullname)
        return None


class _HookingLoader:
    """The module's own loader, which gets its place back before the module runs; then the hook is set."""

    def __init__(self, loader: "Any") -> None:
        self._loader = loader

    def exec_module(self, module: "ModuleType") -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        hook(module)

    def __getattr__(self, name: str) -> "Any":  # create_module, get_data, is_package, ..
        return getattr(self._loader, name)


def hook(module: "ModuleType") -> None:
    """Wrap the functions of a tracker's module. A version that lacks them is reported once, and stays as it is."""
    from importlib import import_module

    from . import shared_journal
    from .journal import warn_once

    name = module.__name__
    try:
        import_module(f".{HOOKS[name]}", __package__).hook(module, shared_journal())
    except Exception as problem:
        tracker = name.partition(".")[0]
        version = getattr(sys.modules.get(tracker), "__version__", "in this version")
        warn_once(
            f"{tracker} {version} cannot be hooked ({problem}): what is logged with it is not recorded by Lossguard"
        )
