import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, GradientAccumulationScheduler, StochasticWeightAveraging
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lossguard.lightning import Lossguard, Watch
from lossguard.lightning.framework import has_whole_gradients
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.lightning.fitting import LoggingRun, Module, Numbers, fit, shuffled

pytestmark = pytest.mark.slow  # importing lightning takes seconds


@pytest.mark.parametrize(
    ("kind", "whole"),
    [(DDPStrategy, True), (SingleDeviceStrategy, True), (FSDPStrategy, False), (DeepSpeedStrategy, False)],
)
def test_only_one_device_and_ddp_have_all_gradients_on_a_rank(kind: type[Strategy], whole: bool) -> None:
    assert has_whole_gradients(object.__new__(kind)) is whole


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


class Whim(torch.utils.data.Sampler[int]):
    """Another order each time."""

    def __iter__(self) -> Iterator[int]:
        return iter(random.SystemRandom().sample(range(40), 40))

    def __len__(self) -> int:
        return 40


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


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda: {"module": Manual()},
            "manual optimization cannot be guarded, because only the module knows where a step begins: let Lightning "
            "optimize, or use lossguard.lightning.Watch(run), which reports and never rolls back",
        ),
        (lambda: {"module": ReadsAhead()}, "training_step(dataloader_iter) cannot be guarded"),
        (lambda: {"loader": {"a": shuffled(8), "b": shuffled(8)}}, "several loaders cannot be guarded"),
        (lambda: {"loader": DataLoader(Endless(), batch_size=1)}, "without a length cannot be guarded"),
        (lambda: {"loader": DataLoader(Numbers(40), batch_size=4, sampler=Whim())}, "gives another order each time"),
        (
            lambda: {"callback": GradientAccumulationScheduler({0: 1, 2: 2})},
            "GradientAccumulationScheduler cannot be guarded",
        ),
        (
            lambda: {"callback": EMAWeightAveraging()},
            "EMAWeightAveraging cannot be guarded, because a rollback would leave",
        ),
        (lambda: {"callback": StochasticWeightAveraging(0.1)}, "StochasticWeightAveraging cannot be guarded"),
        (
            lambda: {"callback": Watch(LoggingRun())},
            "the Trainer has the callbacks Lossguard and Watch: give it one of them",
        ),
        (lambda: {"reload_dataloaders_every_n_epochs": 1}, "reload_dataloaders_every_n_epochs cannot"),
        (lambda: {"strategy": Other()}, "Other cannot be guarded"),
    ],
)
def test_what_cannot_be_guarded_is_refused_before_the_first_step(tmp_path: Path, make: Any, why: str) -> None:
    given = make()
    module, run, loader = given.pop("module", Module()), LoggingRun(), given.pop("loader", shuffled(40))
    callbacks = [given.pop("callback")] if "callback" in given else []
    with pytest.raises(ValueError, match=re.escape(why)):
        fit(tmp_path, loader, Lossguard(run), *callbacks, module=module, max_steps=3, **given)
    assert (module.seen, run.logged, run.recorded) == ({}, [], [])
    assert not list(tmp_path.iterdir())


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
