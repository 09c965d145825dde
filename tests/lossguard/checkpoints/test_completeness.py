"""What a step depends on is in the checkpoints, or the guard says so before the first step."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD, Adam, Optimizer, lr_scheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Sampler

from lossguard import ConfigurationError, Guard
from lossguard.torch import Batches, Checkpoints
from tests.lossguard.checkpoints.box import Box
from tests.lossguard.guard.data.numbers import Numbers
from tests.lossguard.scripted import Indices, ScriptedRun

pytestmark = pytest.mark.slow

SCHEDULERS: list[Callable[[Optimizer], Any]] = [
    lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 10),
    lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
    lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1.0, 10),
    lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer),
    lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)], [5]
    ),
    lambda optimizer: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    ),
]


class Training:
    """A model with its optimizer, whose names no other test uses."""

    def __init__(self, width: int = 3) -> None:
        self.model = nn.Linear(width, 2)
        self.optimizer = Adam(self.model.parameters())

    def state_dict(self) -> dict[str, Any]:
        return {name: each.state_dict() for name, each in vars(self).items()}

    def load_state_dict(self, state: Any) -> None:
        for name, each in vars(self).items():
            each.load_state_dict(state[name])


def guard_of(folder: Path, **objects: Any) -> Guard:
    return Guard(ScriptedRun(), checkpoints=Checkpoints(folder, **objects))


def refusal(folder: Path, **objects: Any) -> str:
    """The sentence with which `guard.steps` refuses to begin; empty if it begins."""
    try:
        for _ in guard_of(folder, **objects).steps(Indices(), 1):
            pass
    except ConfigurationError as problem:
        assert not list(folder.glob("step-*")), "it was refused before the first save"
        return str(problem)
    return ""


@pytest.mark.parametrize("make", SCHEDULERS)
def test_a_scheduler_that_was_not_given_is_refused_with_the_line_that_mends_it(
    make: Callable[[Optimizer], Any], tmp_path: Path
) -> None:
    training = Training()
    scheduler = make(training.optimizer)
    assert refusal(tmp_path / "a", model=training.model, optimizer=training.optimizer) == (
        f"the checkpoints leave out the {type(scheduler).__name__}: "
        "Checkpoints(.., model=model, optimizer=optimizer, scheduler=scheduler)"
    )
    assert refusal(tmp_path / "b", model=training.model, optimizer=training.optimizer, scheduler=scheduler) == ""


def test_a_second_scheduler_of_the_same_optimizer_is_missed_too(tmp_path: Path) -> None:
    training = Training()
    warm_up, decay = (lr_scheduler.ExponentialLR(training.optimizer, gamma) for gamma in (1.1, 0.9))
    sentence = refusal(tmp_path, model=training.model, optimizer=training.optimizer, scheduler=warm_up)
    assert sentence.endswith("scheduler=scheduler, scheduler2=scheduler2)")
    assert decay.last_epoch == 0


def test_what_an_object_of_the_loop_holds_is_saved_with_it(tmp_path: Path) -> None:
    class Whole(Training):
        def __init__(self) -> None:
            super().__init__()
            self.schedules = Schedules(lr_scheduler.ExponentialLR(self.optimizer, 0.9))

    class Schedules:
        def __init__(self, *schedules: Any) -> None:
            self.schedules = list(schedules)

        def state_dict(self) -> list[Any]:
            return [each.state_dict() for each in self.schedules]

        def load_state_dict(self, state: list[Any]) -> None:
            for each, saved in zip(self.schedules, state, strict=True):
                each.load_state_dict(saved)

    assert refusal(tmp_path, training=Whole()) == ""


def test_what_stays_out_on_purpose_and_what_belongs_to_nothing_that_is_saved_is_not_missed(tmp_path: Path) -> None:
    training, other = Training(), Training(4)
    given = {"model": training.model, "optimizer": training.optimizer}
    of_another = lr_scheduler.ExponentialLR(other.optimizer, 0.9)
    scheduler: Any = lr_scheduler.ExponentialLR(training.optimizer, 0.9)
    assert refusal(tmp_path / "a", **given) != ""
    assert refusal(tmp_path / "b", **given, left_out=[scheduler]) == ""
    assert refusal(tmp_path / "c", box=Box()) == ""
    scheduler.cycle = scheduler  # so that it outlives its name
    del scheduler
    assert refusal(tmp_path / "d", **given) == ""
    assert of_another.last_epoch == 0


def test_a_second_optimizer_of_the_model_is_missed_and_a_former_one_is_not(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7))
    former = SGD(model.parameters(), lr=1.0)
    first, second = Adam(model[0].parameters()), SGD(model[1].parameters(), lr=1.0)
    assert refusal(tmp_path / "a", model=model, optimizer=first, left_out=[former]) == ""
    del former
    sentence = refusal(tmp_path / "b", model=model, optimizer=first)
    assert (
        sentence
        == "the checkpoints leave out the SGD: Checkpoints(.., model=model, optimizer=optimizer, optimizer2=optimizer2)"
    )
    assert refusal(tmp_path / "c", model=model, adam=first, sgd=second) == ""
    whole = Adam(model.parameters())
    assert refusal(tmp_path / "d", model=model, optimizer=whole) == ""


def test_an_enabled_grad_scaler_is_missed_unless_another_loop_uses_it(tmp_path: Path) -> None:
    training = Training()
    given = {"model": training.model, "optimizer": training.optimizer}
    scaler = GradScaler("cpu", enabled=False)
    assert refusal(tmp_path / "a", **given) == ""
    scaler = GradScaler("cpu")
    assert refusal(tmp_path / "b", **given).startswith("the checkpoints leave out the GradScaler: ")
    assert refusal(tmp_path / "c", **given, scaler=scaler) == ""
    scaler.scale(torch.ones(()))
    assert refusal(tmp_path / "d", **given) == ""


def test_an_ema_of_the_model_is_missed_and_one_of_another_model_is_not(tmp_path: Path) -> None:
    training = Training(9)
    given = {"model": training.model, "optimizer": training.optimizer}
    ema = AveragedModel(Training(8).model)
    assert refusal(tmp_path / "a", **given) == ""
    ema = AveragedModel(training.model)
    assert refusal(tmp_path / "b", **given).endswith("optimizer=optimizer, ema=ema)")
    assert refusal(tmp_path / "c", **given, ema=ema) == ""


class NeverRestored:
    """A state that nobody restores."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        raise AssertionError("nobody restores it")


class Loader(NeverRestored, DataLoader[Any]):
    """As torchdata's: it goes on where its state says."""


class Positioned(Sampler[int]):
    """A sampler whose state is its position, as torchdata's StatefulDistributedSampler."""

    def __init__(self) -> None:
        self.position = self.begin = 0

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[int]:
        first, self.begin = self.begin, 0
        for index in range(first, 8):
            self.position = index + 1
            yield index

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: Any) -> None:
        self.begin = state["position"]


class Curriculum(Sampler[int]):
    """A sampler whose order follows from what the loop tells it."""

    def __init__(self) -> None:
        self.losses = torch.zeros(8)

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[int]:
        return iter(self.losses.argsort(stable=True).tolist())

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses}

    def load_state_dict(self, state: Any) -> None:
        self.losses = state["losses"]


class Endless(NeverRestored):
    """An iterator with a state."""

    def __iter__(self) -> "Endless":
        return self

    def __next__(self) -> int:
        return 1


def loader_of(sampler: Sampler[int]) -> DataLoader[Any]:
    return DataLoader(Numbers(8), sampler=sampler)


def test_data_whose_position_the_guard_keeps_is_not_restored_a_second_time(tmp_path: Path) -> None:
    """Restored by both, a loader began an epoch in its middle, and its skip counted from there."""
    loader, sampler, endless, box = Loader(Numbers(8)), Positioned(), Endless(), Box()
    cases: list[tuple[Any, Any]] = [
        (loader, loader),
        (Batches(loader), loader),
        (loader_of(sampler), sampler),
        (endless, endless),
    ]
    for number, (batches, given) in enumerate(cases):
        with pytest.raises(ConfigurationError) as refused:
            next(guard_of(tmp_path / str(number), box=box, data=given).steps(batches, 1))
        assert str(refused.value) == (
            "guard.steps keeps the position of data itself, and restoring it too would move it twice: "
            "Checkpoints(.., box=box)"
        )
        assert len(list(guard_of(tmp_path / str(number), box=box).steps(batches, 1))) == 1


def test_a_sampler_whose_order_depends_on_its_state_is_missed(tmp_path: Path) -> None:
    sampler, box = Curriculum(), Box()
    with pytest.raises(ConfigurationError, match=r"the Curriculum: Checkpoints\(.., box=box, sampler=sampler\)"):
        next(guard_of(tmp_path / "a", box=box).steps(loader_of(sampler), 1))
    assert len(list(guard_of(tmp_path / "b", box=box, sampler=sampler).steps(loader_of(sampler), 1))) == 1
    assert len(list(guard_of(tmp_path / "c", box=box, left_out=[sampler]).steps(loader_of(sampler), 1))) == 1
