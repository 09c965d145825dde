"""Lightning's own checkpoints, to which a run is rolled back, with the state of its loops and callbacks.

    <directory>/step-000000050/trainer.ckpt      as `trainer.save_checkpoint` writes it: for `fit(ckpt_path=..)`, too
                               lossguard-0.pt    of each rank: what that file leaves out
                               manifest.json     checksums of both
    <directory>/discarded/step-...               some that the last rollback discarded

The folders are not those of a ModelCheckpoint: its `save_top_k` deletes none of them, and its files are not restored.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossguard.checkpoints.files import check_readable, read_state
from lossguard.checkpoints.framework_checkpoints import FrameworkCheckpoints
from lossguard.checkpoints.state import Stateful
from lossguard.lightning.framework import ModelCheckpoint, Timer, Trainer
from lossguard.lightning.watch import Watch
from lossguard.vocabulary.errors import LogOnce

# The state of Lightning's loops and callbacks.
#
# Private names of Lightning are used here and nowhere else; tests/lossguard/lightning/test_trainer_checkpoints.py
# tries each of them.

DISCARDED = "discarded"
"""Folder for the files that a ModelCheckpoint wrote on a branch that was discarded, beside its other files."""


class LoggedMetrics:
    """The metrics that `self.log` logged last, for callbacks. A NaN among them says nothing against the model."""

    def __init__(self, trainer: Trainer) -> None:
        self._connector = trainer._logger_connector

    def state_dict(self) -> dict[str, Any]:
        return dict(self._connector._callback_metrics)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._connector._callback_metrics = dict(state)


class Loops:
    """The counters of `fit`."""

    def __init__(self, trainer: Trainer, watch: Watch) -> None:
        self._trainer, self._watch = trainer, watch
        self._fit = trainer.fit_loop
        self._epoch = trainer.fit_loop.epoch_loop
        self._extended: tuple[int, int | None] | None = None
        self.position = 0
        """Micro-batch that would come next without skips: of the data, and after a restore of the restored state."""

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self._epoch.automatic_optimization.optim_progress.state_dict(),
            "schedule": self._epoch.scheduler_progress.state_dict(),
            "num_stepped": self._epoch._batches_that_stepped,
            "position": self.position,
            "tokens": self._watch.tokens,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._epoch.automatic_optimization.optim_progress.load_state_dict(state["optimizer"])
        self._epoch.scheduler_progress.load_state_dict(state["schedule"])
        self._epoch._batches_that_stepped = state["num_stepped"]
        self.position, self._watch.tokens = state["position"], state["tokens"]

    def enter(self, step: int, steps_per_epoch: int, accumulate: int, epoch_length: int) -> None:
        """Stand before `step`, inside its epoch; `epoch_length` is in micro-batches. Means of the epoch begin anew."""
        epoch, done = divmod(step, steps_per_epoch)
        done *= accumulate
        for progress in (self._fit.epoch_progress.current, self._fit.epoch_progress.total):
            vars(progress).update(ready=epoch + 1, started=epoch + 1, processed=epoch, completed=epoch)
        batches = self._epoch.batch_progress
        for progress, count in ((batches.current, done), (batches.total, epoch * epoch_length + done)):
            vars(progress).update(ready=count, started=count, processed=count, completed=count)
        if self._fit._data_fetcher is not None:
            self._fit._data_fetcher.fetched = done
        self._epoch._results.reset()

    def stop(self) -> None:
        """End `fit` here, whatever it was asked to do at least."""
        self._trainer.should_stop = True
        self._fit.min_epochs = self._epoch.min_steps = None

    def extend(self) -> None:
        """Ask for one more step after the last one: an order waits, and is executed at its boundary."""
        if self._extended is None:
            self._extended = self._epoch.max_steps, self._fit.max_epochs
            self._epoch.max_steps += self._epoch.max_steps != -1
            self._fit.max_epochs = (self._fit.max_epochs or 0) + (self._fit.max_epochs != -1)

    def unextend(self) -> None:
        if self._extended is not None:
            self._epoch.max_steps, self._fit.max_epochs = self._extended
            self._extended = None


class Callbacks:
    """The state of the other callbacks: how often EarlyStopping waited, which models ModelCheckpoint keeps.

    Not all of them give back what they are given (ModelCheckpoint forgets its current score), so it is not compared.
    """

    def __init__(self, trainer: Trainer, log_once: LogOnce) -> None:
        self._trainer, self._log_once = trainer, log_once
        self._is_running = False  # this process has saved or restored a state

    def state_dict(self) -> dict[str, Any]:
        self._is_running = True
        states = {each.state_key: each.state_dict() for each in self._trainer.callbacks}  # type: ignore[attr-defined]
        for key in [key for key, state in states.items() if not _is_plain(state)]:
            del states[key]
            self._log_once.warn_once(
                f"callback {key}", f"the state of {key} is no plain data: a rollback leaves that callback as it is"
            )
        return {"time": time.time(), "states": {key: state for key, state in states.items() if state}}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        callbacks: list[Any] = self._trainer.callbacks  # type: ignore[attr-defined]
        written = {each: _files(each) for each in callbacks if isinstance(each, ModelCheckpoint)}
        for each in callbacks:
            is_present = isinstance(each, Timer) and self._is_running  # its clock has not gone back
            if each.state_key in saved["states"] and not is_present:
                each.load_state_dict(saved["states"][each.state_key])
        for each, files in written.items():
            each._last_global_step_saved = min(each._last_global_step_saved, self._trainer.global_step)
            known = _files(each)
            if self._is_running and self._trainer.is_global_zero:
                for file in files:
                    if file.exists() and (file not in known or file.stat().st_mtime > saved["time"]):
                        (file.parent / DISCARDED).mkdir(exist_ok=True)
                        file.rename(file.parent / DISCARDED / file.name)
            self._trainer.strategy.barrier("lossguard")
            _forget_missing(each)
        self._is_running = True


def _files(checkpoint: ModelCheckpoint) -> set[Path]:
    """The local files that the callback knows of."""
    names = [*checkpoint.best_k_models, checkpoint.best_model_path, checkpoint.last_model_path]
    return {Path(name) for name in names if name and "://" not in name}


def _forget_missing(checkpoint: ModelCheckpoint) -> None:
    """Files that were deleted after the restored step can be neither the best nor the worst that are kept."""
    kept = {name: score for name, score in checkpoint.best_k_models.items() if "://" in name or Path(name).exists()}
    if len(kept) == len(checkpoint.best_k_models):
        return
    worst, best = (max, min) if checkpoint.mode == "min" else (min, max)
    checkpoint.best_k_models = kept
    checkpoint.kth_best_model_path = worst(kept, key=lambda name: float(kept[name]), default="")
    checkpoint.kth_value = kept.get(checkpoint.kth_best_model_path, torch.tensor(worst(-torch.inf, torch.inf)))
    checkpoint.best_model_path = best(kept, key=lambda name: float(kept[name]), default="")
    checkpoint.best_model_score = kept.get(checkpoint.best_model_path)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | Tensor)


FILE = "trainer.ckpt"


class LightningCheckpoints(FrameworkCheckpoints):
    """Checkpoints that `trainer` writes. `keep`, `keep_bytes`, `uncompared` and `objects`: as for `Checkpoints`.

    Saving raises CheckpointError where `save_hyperparameters` or a hook has put more into the file than tensors and
    plain values: reading it back would run code that is in it.
    """

    formats = ("lightning",)
    own = ("loops", "callbacks", "data", "metrics")

    def __init__(
        self,
        trainer: Trainer,
        directory: str | os.PathLike[str],
        *,
        keep: int,
        keep_bytes: int | None,
        uncompared: Mapping[str, Stateful],
        **objects: Any,
    ) -> None:
        self._trainer = trainer
        space: Any = {"keep": keep, "keep_bytes": keep_bytes}
        super().__init__(directory, **space, blocking=True, uncompared=uncompared, **objects)

    def _write_by_framework(self, folder: Path) -> None:
        try:
            self._trainer.save_checkpoint(folder / FILE)
        except Exception:
            self._trainer.strategy.barrier()  # where the other ranks wait
            raise
        if self.ranks.rank == 0:
            check_readable(folder / FILE)

    def _read_by_framework(self, folder: Path) -> dict[str, Any]:
        return {FILE: read_state(folder / FILE)}

    def _load_states(self, step: int, states: Mapping[str, Any]) -> None:
        trainer, content = self._trainer, states[FILE]
        for each in trainer.callbacks:  # type: ignore[attr-defined]
            each.on_load_checkpoint(trainer, trainer.lightning_module, content)
        trainer.lightning_module.on_load_checkpoint(content)
        precision = type(self.objects["precision"]).__qualname__  # absent where it has no state
        restored = {"model": content["state_dict"], "precision": content.get(precision, {})}
        restored |= {f"optimizer{i}": each for i, each in enumerate(content["optimizer_states"])}
        restored |= {f"schedule{i}": each for i, each in enumerate(content["lr_schedulers"])}
        super()._load_states(step, {**states, **restored})
