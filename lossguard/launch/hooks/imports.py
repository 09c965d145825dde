"""The import hook: when a tracker's module has been imported, its functions are wrapped."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .journal import Journal
from .warnings import warn_once

HOOKS = {
    "wandb.sdk.wandb_run": "wandb",
    "wandb.sdk.lib.noop_run": "wandb",
    "wandb.sdk.wandb_init": "wandb",
    "torch.utils.tensorboard.writer": "tensorboard",
    "tensorboardX.writer": "tensorboard",
    "mlflow.tracking.client": "mlflow",
    "trackio.run": "trackio",
    "transformers.trainer": "transformers",
}
"""Module of a tracker -> the module here whose `hook(module, journal)` wraps its functions."""


class HookFinder(MetaPathFinder):
    """Finds nothing itself: it asks the other finders, and wraps the loader of a module that is to be hooked."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._searching: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in HOOKS or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            for finder in sys.meta_path:
                find: Callable[..., ModuleSpec | None] | None = getattr(finder, "find_spec", None)
                spec = None if finder is self or find is None else find(fullname, path, target)
                if spec is not None:
                    if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                        spec.loader = _HookingLoader(spec.loader, self._journal)
                    return spec
        finally:
            self._searching.discard(fullname)
        return None


class _HookingLoader(Loader):
    """The module's own loader, which gets its place back before the module runs; then the hook is set."""

    def __init__(self, loader: Any, journal: Journal) -> None:
        self._loader = loader
        self._journal = journal

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        hook(module, self._journal)

    def __getattr__(self, name: str) -> Any:  # get_data, is_package, ..
        return getattr(self._loader, name)


def hook(module: ModuleType, journal: Journal) -> None:
    """Wrap the functions of a tracker's module. A version that has them not is said once, and stays as it is."""
    name = module.__name__
    try:
        import_module(f".{HOOKS[name]}", __package__).hook(module, journal)
    except Exception as problem:
        tracker = name.partition(".")[0]
        version = getattr(sys.modules.get(tracker), "__version__", "of this version")
        warn_once(
            f"{tracker} {version} cannot be hooked ({problem}): what is logged with it is not recorded by Lossguard; "
            "everything else goes on"
        )
