"""The smallest real `fit` of Lightning, and what a plain one is like that never reads the skipped batches."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lossguard import Order
from tests.lossguard.scripted import ScriptedRun

WIDTH = 8


class Numbers(Dataset[Tensor]):
    """Sample i, the same ones each time; its first number says which one it is."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Tensor:
        sample = torch.randn(WIDTH, generator=torch.Generator().manual_seed(index))
        sample[0] = index
        return sample


class Module(L.LightningModule):
    """Dropout, AdamW and a schedule over the steps: what a restore forgets shows. It remembers what it trained on."""

    def __init__(self, steps: int = 200, *, before_step: Callable[["Module"], object] = lambda module: None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, 16), nn.Dropout(0.1), nn.Linear(16, WIDTH))
        self.steps = steps
        self.before_step = before_step
        self.seen: dict[int, list[Any]] = {}
        """Step -> (samples, loss, epoch, batch_idx) of each micro-batch, of the last time that it was trained."""
        self.events: list[tuple[Any, ...]] = []

    def loss(self, batch: Tensor) -> Tensor:
        output: Tensor = self.net(batch / 100)
        return (output - batch / 100).square().mean()

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        step = self.trainer.global_step
        self.before_step(self)
        loss = self.loss(batch)
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.seen[step] = []
        self.seen[step].append((batch[:, 0].tolist(), loss.item(), self.trainer.current_epoch, batch_idx))
        self.log("train_loss", loss, on_epoch=True, on_step=False)
        return {"loss": loss, "log_z": 2 * loss.detach()}

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def on_train_epoch_end(self) -> None:
        mean = self.trainer.callback_metrics["train_loss"].item()
        self.events.append(("epoch end", self.trainer.current_epoch, self.trainer.global_step, mean))

    def on_validation_end(self) -> None:
        value = self.trainer.callback_metrics["val_loss"].item()
        self.events.append(("validation", self.trainer.current_epoch, self.trainer.global_step, value))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=self.steps + 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class LoggingRun(ScriptedRun):
    """Keeps the steps that are logged."""

    def __init__(self, orders: dict[int, Order] | None = None) -> None:
        super().__init__(orders)
        self.logged: list[tuple[int, int | None, dict[str, float]]] = []

    def log(self, /, step: int, **metrics: Any) -> None:
        self.logged.append((step, self.batch_index, {name: float(value) for name, value in metrics.items()}))


class FixedOrder:
    """Batches of samples that are known before, epoch by epoch."""

    def __init__(self, epochs: Sequence[list[list[int]]]) -> None:
        self.epochs = iter(epochs)
        self.length = len(epochs[0])

    def __iter__(self) -> Iterator[list[int]]:
        return iter(next(self.epochs))

    def __len__(self) -> int:
        return self.length


def shuffled(size: int, *, batch: int = 4, workers: int = 0) -> DataLoader[Tensor]:
    """A loader with a generator of its own, so that its iterators leave the loop's generators alone."""
    generator = torch.Generator().manual_seed(7)
    return DataLoader(Numbers(size), batch_size=batch, shuffle=True, generator=generator, num_workers=workers)


def filtered(
    size: int, skips: Sequence[tuple[int, int]], *, steps: int, accumulate: int, limit: int | None = None
) -> DataLoader[Tensor]:
    """The batches of `shuffled` without those of `skips`, in epochs of as many batches as before."""
    generator = torch.Generator().manual_seed(7)
    loader: DataLoader[Any] = DataLoader(list(range(size)), batch_size=4, shuffle=True, generator=generator)  # type: ignore[arg-type]
    length = min(limit or len(loader), len(loader))
    epochs = [[each.tolist() for each in islice(loader, length)] for _ in range(2 * steps * accumulate // length + 2)]
    return without(epochs, skips, steps=steps, accumulate=accumulate, dataset=Numbers(size))


def without(
    epochs: Sequence[list[list[int]]],
    skips: Sequence[tuple[int, int]],
    *,
    steps: int,
    accumulate: int,
    dataset: Dataset[Tensor],
) -> DataLoader[Tensor]:
    """The micro-batches of `epochs` without those of the batches in `skips`."""
    length = len(epochs[0])
    groups = [list(range(first, min(first + accumulate, length))) for first in range(0, length, accumulate)]
    order: list[list[list[int]]] = []
    index = 0
    for step in range(steps):
        group = groups[step % len(groups)]
        while any(a <= index < b for a, b in skips) or len(groups[index % len(groups)]) < len(group):
            index += 1
        if step % len(groups) == 0:
            order.append([])
        given = groups[index % len(groups)][: len(group)]
        order[-1] += [epochs[index // len(groups)][each] for each in given]
        index += 1
    order[-1] += [order[0][0]] * (length - len(order[-1]))  # never read
    generator = torch.Generator().manual_seed(7)
    return DataLoader(dataset, batch_sampler=FixedOrder([*order, order[-1]]), generator=generator)


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning talks much, and warns of small loaders and few workers."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def fit(
    folder: Path,
    loader: Any,
    *callbacks: Any,
    module: Module | None = None,
    validation: bool = False,
    checkpoint: Path | None = None,
    **settings: Any,
) -> Module:
    """Train `module`, whose last event is then a random number."""
    settings.setdefault("enable_checkpointing", False)
    settings.setdefault("num_sanity_val_steps", 0)
    settings.setdefault("logger", False)
    settings.setdefault("enable_progress_bar", False)
    module = Module() if module is None else module
    with quiet():
        trainer = L.Trainer(
            accelerator="cpu",
            enable_model_summary=False,
            callbacks=list(callbacks),
            default_root_dir=folder,
            **settings,
        )
        L.seed_everything(1, verbose=False)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(std=0.3)
        trainer.fit(module, loader, DataLoader(Numbers(8), batch_size=4) if validation else None, ckpt_path=checkpoint)
    module.events.append(("random", torch.rand(1).item()))
    return module


def break_weight(at: int) -> Any:
    """A weight is NaN from step `at` on, the first time that the run comes there."""
    broken: list[int] = []

    def before_step(module: Module) -> None:
        if module.trainer.global_step == at and not broken:
            broken.append(at)
            with torch.no_grad():
                next(module.parameters())[0, 0] = float("nan")

    return before_step


def assert_same(one: Module, other: Module) -> None:
    """Contents, losses, epochs and indices, weights, optimizer and schedule, bit for bit."""
    assert one.seen == other.seen
    for mine, theirs in zip(_tensors(one), _tensors(other), strict=True):
        assert torch.equal(mine, theirs)
    assert one.lr_schedulers().state_dict() == other.lr_schedulers().state_dict()  # type: ignore[union-attr]


def _tensors(module: Module) -> list[Tensor]:
    states = module.trainer.optimizers[0].state_dict()["state"]
    return [*module.state_dict().values(), *(value for state in states.values() for value in state.values())]
