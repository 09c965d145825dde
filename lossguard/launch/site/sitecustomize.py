"""Python imports this module at its start, because `lossguard launch` has put its folder on PYTHONPATH.

It hooks the trackers, then runs the `sitecustomize` that it hides: the user's own.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType


def _install_hooks() -> None:
    journal = os.environ.get("LOSSGUARD_LAUNCH")
    if not journal or "lossguard_hooks" in sys.modules:
        return
    folder = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "hooks")
    path = os.path.join(folder, "__init__.py")
    spec = ModuleSpec("lossguard_hooks", SourceFileLoader("lossguard_hooks", path), origin=path, is_package=True)
    spec.submodule_search_locations = [folder]
    _run(spec).install(journal)


def _run_the_hidden_one() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    spec = PathFinder.find_spec("sitecustomize", [path for path in sys.path if os.path.abspath(path) != here])
    if spec is not None:
        _run(spec)


def _run(spec: ModuleSpec) -> ModuleType:
    """Import a module from its spec, under its name: importlib.util, which does the same, takes longer to import."""
    module = sys.modules[spec.name] = ModuleType(spec.name)
    module.__spec__ = spec
    module.__loader__ = spec.loader
    module.__file__ = spec.origin
    if spec.submodule_search_locations is not None:
        module.__path__ = spec.submodule_search_locations
        module.__package__ = spec.name
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


try:
    _install_hooks()
except Exception as problem:  # nothing of ours may keep a program from starting
    print(f"lossguard: the trackers cannot be hooked ({type(problem).__name__}: {problem})", file=sys.stderr)
_run_the_hidden_one()
