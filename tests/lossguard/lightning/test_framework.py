import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lossguard.lightning import Lossguard, Watch
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.lightning.fitting import LoggingRun, Module, Numbers, fit, shuffled

pytestmark = pytest.mark.slow  # importing lightning takes seconds


WITHOUT = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lightning", "pytorch_lightning"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import lossguard.lightning
"""


def test_without_lightning_the_import_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: lossguard.lightning needs Lightning: pip install 'lossguard[lightning]'"
    )


class Manual(Module):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class ReadsAhead(Module):
    def training_step(self, dataloader_iter: Iterator[Any]) -> Any:  # type: ignore[override]
        raise NotImplementedError


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        yield torch.ones(8)


def refused(folder: Path, loader: Any = None, *callbacks: Any, **settings: Any) -> str:
    module = settings.pop("module", None) or Module()
    run = LoggingRun()
    with pytest.raises(ValueError, match=r"cannot be guarded|give it one|another order") as raised:
        fit(
            folder,
            shuffled(40) if loader is None else loader,
            Lossguard(run),
            *callbacks,
            module=module,
            max_steps=3,
            **settings,
        )
    assert (module.seen, run.logged, run.recorded) == ({}, [], [])
    assert not list(folder.iterdir())
    return str(raised.value)


OR_WATCH = ", or use lossguard.lightning.Watch(run), which reports and never rolls back"


def test_manual_optimization_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, module=Manual()) == (
        "manual optimization cannot be guarded, because only the module knows where a step begins: "
        "let Lightning optimize" + OR_WATCH
    )


def test_a_training_step_that_reads_ahead_is_refused(tmp_path: Path) -> None:
    assert "training_step(dataloader_iter) cannot be guarded" in refused(tmp_path, module=ReadsAhead())


def test_several_loaders_are_refused(tmp_path: Path) -> None:
    assert "several loaders cannot be guarded" in refused(tmp_path, {"a": shuffled(8), "b": shuffled(8)})


def test_a_loader_without_a_length_is_refused(tmp_path: Path) -> None:
    assert "without a length cannot be guarded" in refused(tmp_path, DataLoader(Endless(), batch_size=1))


def test_a_changing_accumulation_is_refused(tmp_path: Path) -> None:
    changing = GradientAccumulationScheduler({0: 1, 2: 2})
    assert "GradientAccumulationScheduler cannot be guarded" in refused(tmp_path, None, changing)


def test_loaders_that_are_made_anew_are_refused(tmp_path: Path) -> None:
    assert "reload_dataloaders_every_n_epochs cannot" in refused(tmp_path, reload_dataloaders_every_n_epochs=1)


def test_two_callbacks_of_ours_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, None, Watch(LoggingRun())) == (
        "the Trainer has the callbacks Lossguard and Watch: give it one of them"
    )


def test_a_strategy_that_is_not_tested_is_refused(tmp_path: Path) -> None:
    class Other(ParallelStrategy):
        """As FSDP and DeepSpeed are, which want a GPU before they say anything else."""

        global_rank = local_rank = node_rank = 0
        world_size = 1

        def _do_nothing(self, *arguments: Any, **options: Any) -> Any: ...

        root_device = torch.device("cpu")
        all_gather = all_reduce = barrier = broadcast = model_to_device = reduce = reduce_boolean_decision = _do_nothing

        @property
        def is_global_zero(self) -> bool:
            return True

    assert "Other cannot be guarded" in refused(tmp_path, strategy=Other())


def test_a_sampler_without_a_fixed_order_is_refused(tmp_path: Path) -> None:
    class Whim(torch.utils.data.Sampler[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(random.SystemRandom().sample(range(40), 40))

        def __len__(self) -> int:
            return 40

    loader = DataLoader(Numbers(40), batch_size=4, sampler=Whim())
    assert "gives another order each time" in refused(tmp_path, loader)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"every": 0}, "every=0 must be at least 1"),
        ({"keep": 0}, "keep=0 must be at least 1"),
        ({"store": "hf"}, "store='hf' must be 'lossguard' or 'lightning'"),
        ({"store": "lightning", "memory": 2}, "memory=2 needs store='lossguard'"),
        ({"skip_samples": "always"}, "skip_samples='always' must be 'run' or 'once'"),
    ],
)
def test_arguments_are_refused_when_the_callback_is_made(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Lossguard(LoggingRun(), **options)


def test_what_is_no_run_is_refused_when_the_callback_is_made() -> None:
    for callback in (Lossguard, Watch):
        with pytest.raises(TypeError, match=r"run='gpt' must be what lossguard\.init"):
            callback("gpt")  # type: ignore[arg-type]
