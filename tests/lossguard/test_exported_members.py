"""Public means: in `__all__`, documented, importable."""

import inspect
import subprocess
import sys

import pytest

import lossguard
import lossguard.torch
from lossguard.client.stored_run import StoredRun


def test_every_exported_name_exists_and_is_documented() -> None:
    for module in (lossguard, lossguard.torch):
        for name in module.__all__:
            assert inspect.getdoc(getattr(module, name)), f"{module.__name__}.{name} has no docstring"


def test_every_public_method_of_run_and_guard_is_documented() -> None:
    for kind in (lossguard.Run, lossguard.Guard, lossguard.Client, StoredRun, lossguard.torch.Checkpoints):
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            assert name.startswith("_") or inspect.getdoc(method), f"{kind.__name__}.{name} has no docstring"


def test_importing_the_sdk_imports_neither_torch_nor_numpy() -> None:
    code = "import sys; from lossguard import *; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_exported_names_are_those_that_are_found_when_they_are_used() -> None:
    assert set(lossguard.__all__) <= set(dir(lossguard))
    assert lossguard._MODULE_OF.keys() == set(lossguard.__all__)


def test_an_adapter_is_imported_when_it_is_used_and_an_unknown_name_is_an_error() -> None:
    assert lossguard.torch.Checkpoints.__name__ == "Checkpoints"
    with pytest.raises(AttributeError, match="no attribute 'tensorflow'"):
        _ = lossguard.tensorflow


def test_without_torch_one_sentence_says_what_to_install() -> None:
    code = "import sys; sys.modules['torch'] = None; from lossguard.torch import Checkpoints"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: lossguard.torch needs PyTorch (torch is not installed): pip install 'lossguard[torch]'"
    )
