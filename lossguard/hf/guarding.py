"""A Trainer that is rolled back in place.

The Trainer asks its loader for the first micro-batch of a step when all that belongs to the step before (logging,
evaluation, its own checkpoint) is done. That is the step boundary: there the controller saves, obeys and restores, and
the loop does not notice. To the Trainer the loader is endless: where an epoch of the data ends, the guard ends its.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from lossguard.guard.controller import Boundary, Controller
from lossguard.guard.data.batches import Batches
from lossguard.guard.remedies import ScaledRates
from lossguard.hf.measuring import Hooks, Measuring
from lossguard.hf.trainer_checkpoints import HfCheckpoints, TrainerProgress
from lossguard.torch.summary_writer import purge
from lossguard.vocabulary.errors import LossguardError, never_raises


class Loader:
    """Gives the Trainer what `next_micro_batch()` returns. To others, such as callbacks, it is the `loader` itself.

    The Trainer is the one that has called `set_epoch` before.
    """

    def __init__(
        self, loader: Any, length: int, *, begin: Callable[[], None], next_micro_batch: Callable[[], Any]
    ) -> None:
        """`length`: the micro-batches that the Trainer takes for an epoch."""
        self.loader, self.length = loader, length
        self._begin, self._next_micro_batch = begin, next_micro_batch
        self._is_for_trainer = False

    def __iter__(self) -> Iterator[Any]:
        if not self._is_for_trainer:
            return iter(self.loader)
        self._is_for_trainer = False
        self._begin()
        return self

    def __next__(self) -> Any:
        return self._next_micro_batch()

    def __len__(self) -> int:
        return self.length if self._is_for_trainer else len(self.loader)  # transformers 4 asks before its iterator

    def __getattr__(self, name: str) -> Any:
        """Return other attributes of the loader, such as its `batch_size` and its `sampler`."""
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def set_epoch(self, epoch: int) -> None:
        """The Trainer makes an iterator next. The guard knows the epoch better."""
        self._is_for_trainer = True


class Filling(dict[str, Any]):
    """An empty micro-batch, which no step is trained on.

    The Trainer counts that every step has the same number of micro-batches, but for the last one of an epoch as it
    counts epochs. These stand in front of those of a step that has fewer.
    """


def empty_like(micro_batch: Any) -> Filling:
    """Without samples: every count of tokens in it is 0. What is no mapping has no names that the Trainer counts by."""
    if not isinstance(micro_batch, Mapping):
        return Filling()
    has_rows = {name: isinstance(each, Tensor) and each.dim() > 0 for name, each in micro_batch.items()}
    return Filling({name: each[:0] if has_rows[name] else each for name, each in micro_batch.items()})


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell the loader, and a sampler of whole batches below accelerate's, as the Trainer does."""
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    sampler: Any = getattr(getattr(loader, "batch_sampler", None), "batch_sampler", None)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)


class Guarding(Measuring):
    """Measures a run, and rolls it back."""

    def __init__(self, trainer: Trainer, controller: Controller, progress: TrainerProgress, *, log_z: bool) -> None:
        self.controller = controller
        super().__init__(trainer, controller.run, progress, log_z=log_z)
        self._reset()

    def announce(self) -> None:
        """Leave the announcement to the controller."""

    def _reset(self) -> None:
        self._has_loader = self._is_open = self._has_failed = False
        self._is_last_step = self._has_epoch_ended = False
        self._coming: deque[Any] = deque()  # micro-batches of the present step
        self._batch = 0
        self._scaled = ScaledRates()

    def train(self, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("trial", args[1] if len(args) > 1 else None) is not None:
            raise ValueError("a search for hyperparameters trains many models: one run cannot record them")
        self._is_taken_back = False
        result = super().train(original, *args, **kwargs)
        # The Trainer has begun no epoch. Nothing else can have it train the steps that there are again.
        return super().train(original, *args, **kwargs) if self._is_taken_back else result

    def install(self, hooks: Hooks) -> None:
        super().install(hooks)
        self._reset()
        self._close_data: Callable[[], None] = lambda: None
        hooks.set(self.trainer.args, "ignore_data_skip", True)  # where to begin is ours: the Trainer knows of no skips
        hooks.wrap(self.trainer, "get_train_dataloader", self._make_loader)
        hooks.wrap(self.trainer, "set_initial_training_values", self._initial_values)
        hooks.wrap(self.trainer, "save_model", self._save_model)
        if isinstance(self.controller.checkpoints, HfCheckpoints):
            self.controller.checkpoints.install(hooks)
        hooks.wrap(self.trainer, "_maybe_log_save_evaluate", self._log_save_evaluate)

    def ended(self) -> None:
        super().ended()
        self.controller.abandon()  # `train` may have raised; the last step was logged with its batch
        self.run.batch_index = None
        self._close_data()
        self._reset()

    def _make_loader(self, original: Callable[[], Any]) -> Any:
        if self._has_loader:  # a callback asks for another one: the training goes on with its own
            return original()
        self._has_loader = True
        loader, accumulate = original(), self.trainer.args.gradient_accumulation_steps
        num = accumulate if accumulate > 1 else None
        self._batches = Batches(loader, accumulate=num, set_epoch=partial(set_epoch, loader))
        self._close_data = self._batches.micro_batches.close  # with the workers of its iterator
        length = sys.maxsize // accumulate * accumulate
        return Loader(loader, length, begin=self._begin_epoch, next_micro_batch=self._next_micro_batch)

    def _save_model(self, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """With the arguments that the user gave: they are saved too."""
        changed, self.trainer.args = self.trainer.args, self._given
        try:
            return original(*args, **kwargs)
        finally:
            self.trainer.args = changed

    def _initial_values(self, original: Callable[..., Any], args: Any, loader: Loader, *others: Any) -> Any:
        """The Trainer's own numbers, but without an end of epochs and of their number: the last step ends the loop."""
        num_epochs, _, num_examples, num_samples, total, _, max_steps = original(args, loader.loader, *others)
        self._num_epochs, self._until = num_epochs, max_steps
        self._is_done = self.controller.resumes_at() >= max_steps and not self._is_taken_back
        epochs = 0 if self._is_done else sys.maxsize
        steps_per_epoch = loader.length // args.gradient_accumulation_steps
        return epochs, steps_per_epoch, num_examples, num_samples, total, loader.length, max_steps

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        super().on_train_begin(args, state, control, **others)
        state.num_train_epochs = self._num_epochs
        if self._is_done:  # no step is left, unless an order waits, or the newest checkpoint is damaged
            at = self._open()
            self.controller.close()
            self._is_taken_back = at.step < self._until and not at.stop

    def _begin_epoch(self) -> None:
        """The Trainer makes its iterator: the first time, all is as its first step will find it."""
        if not self._is_open:
            self._go_on(self._open())
            self._is_open = True

    def _open(self) -> Boundary:
        self.progress.begin()
        self.controller.comparison.begin(self._batches)
        step, data = self.trainer.state.global_step, self._batches
        at = self.controller.open(until=self._until, step=step, data=data, sample_skips=data.sample_skips)
        self._forget_deleted_best(at)
        return at

    def _next_micro_batch(self) -> Any:
        if not self._coming:
            self.log_step()
            self._go_on(self._boundary())
        return self._coming.popleft()

    def _boundary(self) -> Boundary:
        """Return the controller's next boundary; after an error of ours, batch follows batch."""
        if not self._has_failed:
            try:
                at = self.controller.boundary()
                self._forget_deleted_best(at)
                return at
            except LossguardError:
                raise
            except Exception as problem:
                self._has_failed = True
                self.controller.give_up(problem)
        coming = self._batch + 1
        self.run.batch_index = self.controller.ledger.next_free(coming)
        return Boundary(self.trainer.state.global_step, self.run.batch_index, restored=False, stop=False, since=coming)

    def _go_on(self, at: Boundary) -> None:
        """Load the step that comes next."""
        if at.restored:
            self.forget()
            self._purge(at.step + 1)  # the Trainer logs for a step how many are done
        self._is_last_step = at.stop  # the Trainer cannot be stopped before a step, nor within one
        self._batch = at.batch
        self._batches.seek(at.batch, since=at.since)
        loaded = self._batches[at.batch]
        self.controller.comparison.add(at.batch, loaded)
        accumulate = self._batches.accumulate
        micro_batches = [loaded] if accumulate == 1 else list(loaded)
        self._num_micro_batches = len(micro_batches)
        missing = accumulate - len(micro_batches)
        self._coming.extend([*(empty_like(micro_batches[0]) for _ in range(missing)), *micro_batches])

    def _forget_deleted_best(self, at: Boundary) -> None:
        """Forget the restored best metric, on all ranks, if `save_total_limit` has deleted its checkpoint later on."""
        state, ranks = self.trainer.state, self.controller.ranks
        best = state.best_model_checkpoint
        if at.restored and ranks.ask_rank_0(lambda: best is not None and not os.path.isdir(best)):
            state.best_model_checkpoint = state.best_metric = state.best_global_step = None
            self.log_once.warn(f"{best} was deleted: the best model is looked for anew from step {at.step} on")

    @never_raises
    def _purge(self, step: int) -> None:
        for each in self.trainer.callback_handler.callbacks:
            if getattr(each, "tb_writer", None) is not None:
                purge(each.tb_writer, step)

    def training_step(self, original: Callable[..., Tensor], model: Any, inputs: Any, *others: Any) -> Tensor:
        if isinstance(inputs, Filling):
            return torch.zeros((), device=self.trainer.args.device)
        self.trainer.current_gradient_accumulation_steps = self._num_micro_batches
        return super().training_step(original, model, inputs, *others)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **others: Any) -> None:
        self._scaled.scale(optimizer, self.controller.lr_scale)
        super().on_pre_optimizer_step(args, state, control, optimizer=optimizer, **others)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        self._scaled.undo(optimizer)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The step before was logged when this one was loaded."""

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:
        super().on_step_end(args, state, control, **others)
        length = self._batches.micro_batches.length
        if length is not None:
            first, num = self._batches.span(self._batch)
            state.epoch = first // length + (first % length + num) / length
            coming, _ = self._batches.span(self.controller.ledger.next_free(self._batch + 1))
            control.should_epoch_stop |= coming // length > first // length
        if self._stops():
            control.should_training_stop = True
        return control

    def _stops(self) -> bool:
        """All ranks know of a signal, or it came to a run of one rank."""
        return self._is_last_step or (self.controller.interrupted and self.controller.ranks.size == 1)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._has_epoch_ended = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._has_epoch_ended = True

    def _log_save_evaluate(self, original: Callable[..., None], loss_sum: Tensor, *others: Any, **named: Any) -> None:
        control = self.trainer.control
        self.progress.loss_sum = loss_sum  # this very tensor is the loop's
        if self._has_epoch_ended and self._stops():
            control.should_evaluate = False  # the signal came in the middle of the epoch
        original(loss_sum, *others, **named)
        if self._has_epoch_ended and control.should_training_stop:
            self._end()

    def _end(self) -> None:
        """The last boundary: the Trainer may put its best model in the place of the last one after it."""
        if self._finished_step is not None:  # else a callback has stopped the training within a step
            self.log_step()
            at = self._boundary()
            if at.restored and not at.stop and at.step < self._until:
                self.trainer.control.should_training_stop = False  # it was taken back: the Trainer begins another epoch
                self._go_on(at)
                return
        if not self._has_failed:
            self.controller.close()
