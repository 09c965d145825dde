"""Python imports this module at its start, because `lossguard launch` has put its folder on PYTHONPATH.

It hooks the trackers, then runs the `sitecustomize` that it hides: the user's own.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType


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


HERE = os.path.dirname(os.path.abspath(__file__))

try:
    journal = os.environ.get("LOSSGUARD_LAUNCH")
    if journal and "lossguard_hooks" not in sys.modules:
        folder = os.path.join(os.path.dirname(HERE), "hooks")
        path = os.path.join(folder, "__init__.py")
        loader = SourceFileLoader("lossguard_hooks", path)
        hooks = ModuleSpec("lossguard_hooks", loader, origin=path, is_package=True)
        hooks.submodule_search_locations = [folder]
        _run(hooks).install(journal)
except Exception as problem:  # nothing of ours may keep a program from starting
    print(f"lossguard: the trackers cannot be hooked ({type(problem).__name__}: {problem})", file=sys.stderr)
hidden = PathFinder.find_spec("sitecustomize", [path for path in sys.path if os.path.abspath(path) != HERE])
if hidden is not None:
    _run(hidden)
