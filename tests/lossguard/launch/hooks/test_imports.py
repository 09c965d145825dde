import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from lossguard.launch import hooks
from lossguard.launch.hooks import imports
from lossguard.launch.hooks.journal import Journal


@pytest.fixture
def finder(tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Iterator[imports.HookFinder]:
    """The import hook, with an empty place for fakes of trackers."""
    monkeypatch.setattr(hooks, "_journal", journal)
    monkeypatch.syspath_prepend(tmp_path)
    known = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "trackio"}
    for name in known:
        del sys.modules[name]
    installed = imports.HookFinder()
    sys.meta_path.insert(0, installed)
    yield installed
    sys.meta_path.remove(installed)
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        del sys.modules[name]
    sys.modules |= known


def fake(folder: Path, run: str) -> None:
    (folder / "trackio").mkdir()
    (folder / "trackio" / "__init__.py").write_text("__version__ = '9.9'\n")
    (folder / "trackio" / "run.py").write_text(run)


def test_a_module_is_hooked_when_it_is_imported_and_keeps_its_loader(
    finder: imports.HookFinder, tmp_path: Path
) -> None:
    fake(tmp_path, "class Run:\n    def log(self, metrics, step=None): return 'logged'\n")
    module = import_module("trackio.run")
    assert hasattr(module.Run.log, "__wrapped__")
    assert module.__spec__ is not None
    assert module.__loader__ is module.__spec__.loader
    assert type(module.__loader__).__name__ == "SourceFileLoader"


def test_a_version_that_cannot_be_hooked_is_said_once_and_works(
    finder: imports.HookFinder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(tmp_path, "class Run:\n    def record(self): return 'recorded'\n")
    module = import_module("trackio.run")
    assert module.Run().record() == "recorded"
    assert capsys.readouterr().err == (
        "lossguard: trackio 9.9 cannot be hooked (it has no Run.log): what is logged with it is not recorded by "
        "Lossguard\n"
    )


def test_an_import_that_fails_fails_as_before(finder: imports.HookFinder, tmp_path: Path) -> None:
    fake(tmp_path, "raise RuntimeError('of the tracker')")
    with pytest.raises(RuntimeError, match="of the tracker"):
        import_module("trackio.run")
