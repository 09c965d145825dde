"""The callback that guards: the run is rolled back in the middle of `fit`, and skips what was bad.

Lightning keeps the state of its loops in progress counters, and asks its loader for the first micro-batch of a step
only when all that belongs to the step before is done: hooks, schedules, validation, checkpoints. So the loader is the
step boundary. There the controller saves, obeys and restores in place, counters included; the loops do not notice.

An epoch of Lightning is a number of steps: a skip makes the data last less, and moves no epoch, validation or schedule.
"""

import math
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from lossguard.checkpoints.checkpoints import Checkpoints
from lossguard.checkpoints.remote.files import within
from lossguard.guard.controller import Controller
from lossguard.guard.data.batches import Batches, MicroBatches
from lossguard.guard.data.comparison import Repeats
from lossguard.guard.remedies import ScaledRates
from lossguard.lightning.framework import (
    LightningModule,
    RichProgressBar,
    TensorBoardLogger,
    TQDMProgressBar,
    Trainer,
    refuse,
    refuse_arguments,
    refuse_setup,
)
from lossguard.lightning.trainer_checkpoints import Callbacks, LightningCheckpoints, LoggedMetrics, Loops
from lossguard.lightning.watch import Watch
from lossguard.run.run import Run
from lossguard.torch.summary_writer import purge
from lossguard.vocabulary.errors import ConfigurationError, LossguardError, never_raises
from lossguard.vocabulary.limits import Limits
from lossguard.vocabulary.orders import Skip
from lossguard.vocabulary.protocol import is_step

SHORT_GROUP = "too few micro-batches for the step"
"""Reason for passing over the last batch of an epoch where a step within Lightning's epoch needs a full one."""


class Lossguard(Watch):
    """Watch the Trainer, and roll it back in place, past the batches that the collector names.

    `every`: steps between two checkpoints; `directory`: their folder, by default `lossguard` in the trainer's
    `default_root_dir`; `store="lossguard"`: they are written in the background, and with `memory` kept in host memory
    too; `store="lightning"`: each holds what `trainer.save_checkpoint` writes, and the loop waits for it; `keep`,
    `keep_bytes`, `memory`, `memory_every`: see `lossguard.torch.Checkpoints`; `signals`, `skips`, `skip_samples`,
    `limits`, `resume_from`: see `lossguard.Guard`.

    Raises ConfigurationError for an invalid argument, and TypeError for what is no run. `fit` raises ConfigurationError
    before the first step for what cannot be guarded, and later the errors that `lossguard.Guard` raises into a loop.
    """

    def __init__(
        self,
        run: Run,
        *,
        every: int = 50,
        store: str = "lossguard",
        directory: str | Path | None = None,
        keep: int = 20,
        keep_bytes: int | None = None,
        memory: int = 0,
        memory_every: int = 10,
        held_out: str | None = None,
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
        skips: Iterable[Skip | tuple[int, int]] = (),
        skip_samples: str = "run",
        limits: Limits | None = None,
        resume_from: int | None = None,
    ) -> None:
        super().__init__(run, held_out=held_out)
        self.storage: dict[str, Any] = {"keep": keep, "keep_bytes": keep_bytes}
        self.storage |= {"memory": memory, "memory_every": memory_every}
        refuse_arguments(every=every, store=store, skip_samples=skip_samples, **self.storage)
        if resume_from is not None and not is_step(resume_from):
            raise ConfigurationError(f"resume_from={resume_from!r:.80} must be a step, from 0")
        self.every, self.directory, self.signals, self.skips = every, directory, tuple(signals), tuple(skips)
        self.skip_samples, self.limits, self.resume_from = skip_samples, limits, resume_from
        self.controller: Controller | None = None
        """None before the first step, and when the run is not guarded any more."""
        self.store = store
        self._undo = ExitStack()  # what is changed of the trainer while it fits
        self._scaled = ScaledRates()

    def announce(self) -> None:
        """Leave the announcement to the controller."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            refuse_setup(trainer, pl_module, store=self.store)
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # it only shows that nothing raises
                self._wrap_loader(trainer)

    def _wrap_loader(self, trainer: Trainer) -> None:
        """The training loader passes through the strategy before the first iterator is made of it."""
        prepared = trainer.strategy.process_dataloader

        def process_dataloader(dataloader: object) -> object:
            dataloader = prepared(dataloader)
            if not trainer.training or trainer.sanity_checking:
                return dataloader
            try:
                len(dataloader)  # type: ignore[arg-type]
            except TypeError:
                refuse("a training loader without a length", "its epochs have no known end: give its dataset a __len__")
            return GuardedLoader(self, dataloader)

        vars(trainer.strategy)["process_dataloader"] = process_dataloader
        self._undo.callback(vars(trainer.strategy).pop, "process_dataloader", None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        loader = trainer.train_dataloader
        if not isinstance(loader, GuardedLoader):
            refuse("training with several loaders", "their common position is not known: combine their datasets")
        loader.is_guarded = True
        self._undo.callback(setattr, loader, "is_guarded", False)
        self._accumulate = trainer.accumulate_grad_batches
        self._trainer = trainer
        self._data = MicroBatches(loader.inner, accumulate=self._accumulate, read_end=False)
        if self._data.length is None:  # of a stream that says how long it is
            self._data.length = len(loader.inner)
        self._undo.callback(self._data.close)
        self._loops = Loops(trainer, self)
        self._undo.callback(self._loops.unextend)
        self._epoch_length = int(trainer.num_training_batches)
        self._steps_per_epoch = math.ceil(self._epoch_length / self._accumulate)
        self._left = 0  # micro-batches of the step that are still to come
        self._is_open = False
        epochs = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs >= 0 else sys.maxsize
        steps = trainer.max_steps if trainer.max_steps >= 0 else sys.maxsize
        self._until = min(epochs * self._steps_per_epoch, steps)
        self._store = store = self._checkpoints(trainer)
        self.controller = Controller(
            self.run,
            checkpoints=store,
            every=self.every,
            signals=self.signals,
            skips=self.skips,
            skip_samples=self.skip_samples,
            limits=self.limits,
            resume_from=self.resume_from,
        )
        self.controller.comparison.begin(_Compared(self._data, self._steps_per_epoch))
        for optimizer in trainer.optimizers:
            self._undo.callback(optimizer.register_step_pre_hook(self._scale).remove)
            self._undo.callback(optimizer.register_step_post_hook(self._unscale).remove)
        if self.controller.resumes_at() >= self._until:
            with suppress(StopIteration):
                self._boundary()  # nothing is left to train, so no epoch begins

    def _checkpoints(self, trainer: Trainer) -> Checkpoints:
        objects: dict[str, Any] = {f"optimizer{i}": each for i, each in enumerate(trainer.optimizers)}
        objects |= {f"schedule{i}": each.scheduler for i, each in enumerate(trainer.lr_scheduler_configs)}
        objects |= {"model": trainer.lightning_module, "precision": trainer.precision_plugin, "loops": self._loops}
        uncompared: Any = {"callbacks": Callbacks(trainer, self.log_once), "data": self._data}
        uncompared["metrics"] = LoggedMetrics(trainer)
        directory = self.directory or within(trainer.default_root_dir, "lossguard")
        if self.store == "lightning":
            space = {name: self.storage[name] for name in ("keep", "keep_bytes")}
            return LightningCheckpoints(trainer, directory, uncompared=uncompared, **space, **objects)
        return Checkpoints(directory, uncompared=uncompared, **objects, **self.storage)

    def next_micro_batch(self) -> Any:
        """Return what Lightning gets from its loader."""
        if self._left == 0:
            self.flush()
            self._boundary()
        self._left -= 1
        micro_batch = next(self._data)
        if self.controller is not None and self.run.batch_index is not None:
            self.controller.comparison.add_micro_batch(self.run.batch_index, self._left, micro_batch)
        return micro_batch

    def _boundary(self) -> None:
        """Between two steps. Raises StopIteration, which ends Lightning's epoch, if the run ends here."""
        controller = self.controller
        if controller is None:  # after an error of ours
            self._left = 1
            return
        try:
            self._cross(controller)
        except (LossguardError, KeyboardInterrupt, StopIteration):
            raise
        except Exception as problem:
            if not self._is_open:  # what was resumed in part is not trained on
                raise
            controller.give_up(problem)
            self.controller, self._left = None, 1

    def _cross(self, controller: Controller) -> None:
        is_first = not self._is_open
        self._loops.position = self._data.position
        step = self._trainer.global_step
        if is_first:
            sample_skips = self._data.sample_skips(self._first, used=self._epoch_length, exempt=SHORT_GROUP)
            at = controller.open(until=self._until, step=step, sample_skips=sample_skips)
        else:
            at = controller.boundary()
        self._loops.unextend()
        if at.restored or (is_first and at.step):
            self._loops.enter(at.step, self._steps_per_epoch, self._accumulate, self._epoch_length)
            self._num_steps = at.step
            self._forget()
        if at.stop or at.step >= self._until:
            self.controller = None
            controller.close()
            self._loops.stop()
            raise StopIteration
        if at.restored:
            self._show_again(at.step)
        batch = at.batch
        while self._size(batch) < self._size(at.step):
            controller.ledger.add(Skip(batch, batch + 1, SHORT_GROUP))
            self.run.batch_index = batch = controller.ledger.next_free(batch)
        self._left = self._size(at.step)
        is_known = at.restored or not is_first
        self._data.seek(self._first(batch), since=self._loops.position if is_known else None)
        self._is_open = True

    @never_raises
    def _show_again(self, step: int) -> None:
        """The steps from `step` on come again: TensorBoard hides what it has of them, and the bar goes back."""
        trainer = self._trainer
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, TensorBoardLogger):
                purge(logger.experiment, step)
        shown, done = trainer.progress_bar_callback, step % self._steps_per_epoch * self._accumulate
        if isinstance(shown, TQDMProgressBar):
            shown.train_progress_bar.n = done
            shown.train_progress_bar.set_description(f"Epoch {trainer.current_epoch}")
        elif shown is not None:
            shown.on_train_epoch_start(trainer, trainer.lightning_module)
            if isinstance(shown, RichProgressBar) and shown.progress and shown.train_progress_bar_id is not None:
                shown.progress.update(shown.train_progress_bar_id, completed=done)

    def _size(self, index: int) -> int:
        """Micro-batches of a step, or of a batch of the data: the last one of an epoch may have fewer."""
        done = index % self._steps_per_epoch * self._accumulate
        return min(self._accumulate, self._epoch_length - done)

    def _first(self, batch: int) -> int:
        """Absolute index of the first micro-batch of a batch. Of each epoch of the data, the first ones are used."""
        epoch, group = divmod(batch, self._steps_per_epoch)
        assert self._data.length is not None
        return epoch * self._data.length + group * self._accumulate

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        is_last = self.controller is not None and self._left == 0 and trainer.global_step >= self._until
        if is_last and self.controller is not None and self.controller.has_order():
            self._loops.extend()

    def _scale(self, optimizer: Optimizer, *arguments: Any) -> None:
        """Before a step of the optimizer: an order or a remedy may have lowered the learning rate."""
        if self.controller is not None:
            self._scaled.scale(optimizer, self.controller.lr_scale)
        self._of_step["lr"] = optimizer.param_groups[0]["lr"]

    def _unscale(self, optimizer: Optimizer, *arguments: Any) -> None:
        self._scaled.undo(optimizer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        controller, self.controller = self.controller, None
        if controller is not None and self._is_open:
            if step_done := self._left == 0:
                self._loops.position = self._data.position
            controller.close(step_done=step_done)
        self._undo.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        controller, self.controller = self.controller, None
        if controller is not None:
            controller.abandon()
            if controller.ranks.size == 1:  # a later fit of this process may use the same folder
                with suppress(Exception):
                    self._store.settle(wait=True)
        self._undo.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        self._undo.close()


class _Compared:
    """The batches of a fit, whose samples are compared after a rollback."""

    advice = Batches.advice

    def __init__(self, data: MicroBatches, steps_per_epoch: int) -> None:
        self._data, self._steps_per_epoch = data, steps_per_epoch

    @property
    def repeats(self) -> Repeats:
        return self._data.repeats

    def pass_of(self, index: int) -> int:
        return index // self._steps_per_epoch


class GuardedLoader:
    """The training loader as Lightning sees it. It asks for no iterator before the first micro-batch is wanted."""

    def __init__(self, callback: Lossguard, inner: Any) -> None:
        self.callback, self.inner = callback, inner
        self.is_guarded = False
        """False where something else reads it, such as a search for a learning rate before the fit."""
        self._iterator: Iterator[Any] | None = None

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[Any]:
        self._iterator = None
        return self

    def __next__(self) -> Any:
        if self.is_guarded:
            return self.callback.next_micro_batch()
        if self._iterator is None:
            self._iterator = iter(self.inner)
        return next(self._iterator)

    @property
    def worker_init_fn(self) -> Any:
        return self.inner.worker_init_fn

    @worker_init_fn.setter
    def worker_init_fn(self, function: Any) -> None:  # seed_everything(workers=True)
        self.inner.worker_init_fn = function

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "callback"):
            raise AttributeError(name)
        return getattr(self.inner, name)
