"""The Trainer's own checkpoints, to which a guard rolls back, and the progress that they hold.

    <output_dir>/checkpoint-50/manifest.json     checksums of all files
                               lossguard-0.pt    of each rank: the guard's state, and what the Trainer leaves out
                               model.safetensors, optimizer.pt ...    as the Trainer writes them
    <output_dir>/discarded/checkpoint-100        what the last rollback has left

A folder without a manifest is no checkpoint of the guard. The Trainer writes trainer_state.json last: a folder without
it is one that a killed process has not finished, and is renamed, because the Trainer would resume from it.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_callback import ExportableState

from lossguard.checkpoints.certificate import CERTIFICATE
from lossguard.checkpoints.checkpoints import Checkpoints
from lossguard.checkpoints.files import DISCARDED, MANIFEST, flush, listed, remove, write_manifest
from lossguard.checkpoints.framework_checkpoints import FrameworkCheckpoints
from lossguard.checkpoints.local_folder import LocalFolder, locked
from lossguard.hf.measuring import Hooks
from lossguard.vocabulary.errors import logger

# The progress of a Trainer.

STATE = (
    *("epoch", "global_step", "num_input_tokens_seen", "total_flos", "log_history"),
    *("best_metric", "best_global_step", "best_model_checkpoint"),
)
"""Fields of a TrainerState with the progress; the others are settings, which a resumed run may change."""
SUMS = ("_total_loss_scalar", "_globalstep_last_logged", "current_flos")
"""Attributes that the Trainer keeps outside of its state, for its own logs."""


class Part:
    """An attribute of a Trainer that is made when the training begins, such as its optimizer."""

    def __init__(self, trainer: Trainer, name: str) -> None:
        self.trainer, self.name = trainer, name

    @property
    def module(self) -> Any:
        return getattr(self.trainer, self.name)

    def state_dict(self) -> Any:
        return self.module.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.module.load_state_dict(state)


class TrainerProgress:
    """The TrainerState, the sums behind the losses that the Trainer logs, and the state of its callbacks."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer: Any = trainer
        self.loss_sum: Tensor | None = None
        """The tensor in which the loop sums losses up until it logs them, where it is known."""
        self.tokens: Any = None
        """Input tokens of the run so far, as `include_num_input_tokens_seen="all"` counts; a number or a 0-dim tensor.
        None: not known."""

    def begin(self) -> None:
        """A loop begins: its sum is known from the beginning on, or (transformers 4) after its first step."""
        self.loss_sum = getattr(self.trainer, "_tr_loss", None)

    def state_dict(self) -> dict[str, Any]:
        """Return the progress in tensors and plain values."""
        state = {name: getattr(self.trainer.state, name) for name in STATE if hasattr(self.trainer.state, name)}
        sums = {name: float(getattr(self.trainer, name)) for name in SUMS if hasattr(self.trainer, name)}
        callbacks = [[type(each).__name__, each.state().get("attributes", {})] for each in self._callbacks()]
        loss_sum = None if self.loss_sum is None else self.loss_sum.detach().clone()
        text = json.dumps({"state": state, "callbacks": callbacks}, default=lambda value: value.item())
        tokens = None if self.tokens is None else torch.as_tensor(self.tokens)
        return {"json": text, "sums": sums, "loss_sum": loss_sum, "tokens": tokens}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore it into the objects that the loop holds."""
        content = json.loads(saved["json"])
        self.tokens = saved["tokens"]
        for name, value in content["state"].items():
            setattr(self.trainer.state, name, value)
        for callback, (name, attributes) in zip(self._callbacks(), content["callbacks"], strict=False):
            if type(callback).__name__ == name:
                vars(callback).update(attributes)
        for name, value in saved["sums"].items():
            setattr(self.trainer, name, type(getattr(self.trainer, name))(value))
        if self.loss_sum is not None and saved["loss_sum"] is not None:
            with torch.no_grad():
                self.loss_sum.copy_(saved["loss_sum"])
        else:  # begin a new mean, as the Trainer does when it resumes
            self.trainer._globalstep_last_logged = self.trainer.state.global_step

    def _callbacks(self) -> list[ExportableState]:
        return [each for each in self.trainer.callback_handler.callbacks if isinstance(each, ExportableState)]


# The checkpoints.

NAME = re.compile(r"checkpoint-(\d+)")


def folders_in(output: Path) -> dict[int, Path]:
    """Step -> folder of each of them, ascending."""
    found = filter(None, map(NAME.fullmatch, listed(output)))
    return {step: output / name for step, name in sorted((int(match[1]), match[0]) for match in found)}


def set_aside_after(output: Path, step: int) -> None:
    """Move later ones to `discarded`, in place of those of the rollback before.

    `resume_from_checkpoint=True` would take the highest number.
    """
    later = [folder for known, folder in folders_in(output).items() if known > step]
    if later:
        for earlier in folders_in(output / DISCARDED).values():
            shutil.rmtree(earlier)
        (output / DISCARDED).mkdir(exist_ok=True)
        for folder in later:
            folder.rename(output / DISCARDED / folder.name)


class PartCheckpoints(Checkpoints):
    """Checkpoints of the parts of a Trainer, beside those that it writes itself."""

    def __init__(self, trainer: Trainer, directory: str | Path, progress: TrainerProgress, **options: Any) -> None:
        names = {"model": "model", "optimizer": "optimizer", "scheduler": "lr_scheduler"}
        objects: dict[str, Any] = {name: Part(trainer, attribute) for name, attribute in names.items()}
        if getattr(trainer.accelerator, "scaler", None) is not None:
            objects["scaler"] = trainer.accelerator.scaler
        super().__init__(directory, uncompared={"trainer": progress}, **objects, **options)
        self.trainer: Any = trainer
        self._output = Path(str(trainer.args.output_dir))

    def discard_after(self, step: int) -> None:
        """Also of those that the Trainer has written."""
        super().discard_after(step)
        if self.ranks.rank == 0:
            set_aside_after(self._output, step)

    def _parts(self) -> list[Any]:
        return [self.trainer.model, self.trainer.optimizer]


PARTS = ("model", "optimizer", "lr_scheduler")
KEEP = 20
"""Default number of the newest checkpoints that stay."""


class _OutputFolder(LocalFolder):
    """`output_dir`, with the names of the Trainer."""

    def folder(self, step: int) -> Path:
        return self.path / f"checkpoint-{step}"


class HfCheckpoints(FrameworkCheckpoints):
    """The folders that `trainer` writes.

    `keep`, `keep_bytes`: as for `Checkpoints`; `keep=None`: the newest `save_total_limit` stay (at least 2), and no
    older ones, or without that limit the newest 20 and ever fewer older ones. While the training runs, the Trainer
    deletes none itself: a rollback may need them. Its limit also holds for those that it saves besides the guard.
    """

    formats = ("transformers",)
    own = ("progress",)

    def __init__(
        self, trainer: Trainer, progress: TrainerProgress, *, keep: int | None, keep_bytes: int | None
    ) -> None:
        if trainer.args.save_only_model:
            raise ValueError("save_only_model=True leaves the optimizer out: a guard could not restore it (store='hf')")
        self.trainer: Any = trainer
        self.limit = max(0, trainer.args.save_total_limit or 0)  # 0: none
        self._keeps_older = keep is not None or not self.limit
        self._saved_by_trainer: int | None = None  # the step whose folder holds the present state
        parts: Any = {name: Part(trainer, name) for name in PARTS}
        output = str(trainer.args.output_dir)
        keep = (max(2, self.limit) if self.limit else KEEP) if keep is None else keep
        options: Any = {"keep": keep, "keep_bytes": keep_bytes, "blocking": True}
        super().__init__(output, uncompared={"progress": progress}, **options, **parts)
        if self.ranks.rank == 0:
            for folder in self._folders().values():
                if not (folder / "trainer_state.json").is_file():
                    logger.warning("%s is incomplete, and is renamed: the Trainer would resume from it", folder)
                    aside = folder.with_name(f"incomplete-{folder.name}")
                    shutil.rmtree(aside, ignore_errors=True)
                    folder.rename(aside)

    def install(self, hooks: Hooks) -> None:
        """While a training runs: the Trainer deletes nothing, and what it saves itself is not saved twice."""
        self._saved_by_trainer = None
        hooks.set(self.trainer.args, "save_total_limit", None)
        hooks.wrap(self.trainer, "evaluate", self._evaluate)
        hooks.wrap(self.trainer, "_save_checkpoint", self._save_checkpoint)

    def durable_steps(self) -> list[int]:
        """Steps of the folders with a manifest, ascending."""
        return [step for step, folder in self._folders().items() if (folder / MANIFEST).is_file()]

    def discard_after(self, step: int) -> None:
        """Move them aside, of the Trainer too."""
        if self.ranks.rank == 0:
            set_aside_after(self._output.path, step)

    def _save_checkpoint(self, original: Any, *arguments: Any, **options: Any) -> None:
        step = self.trainer.state.global_step
        if self.ranks.rank == 0:  # it is no checkpoint while it is written anew
            (self._path(step) / MANIFEST).unlink(missing_ok=True)
        original(*arguments, **options)
        self._saved_by_trainer = step

    def _evaluate(self, original: Any, *arguments: Any, **options: Any) -> Any:
        """Evaluate; a checkpoint from before is then out of date, because learning rate and best metric may change."""
        self._saved_by_trainer = None
        return original(*arguments, **options)

    def _open_place(self, directory: str | os.PathLike[str], *_: Any) -> LocalFolder:
        self._output = _OutputFolder(Path(directory), self.ranks)
        return self._output

    def _write(self, step: int, states: Mapping[str, Any]) -> None:
        """Write in place, the manifest last. A damaged state is not written: the Trainer would resume from it."""
        if self._damage_on_any_rank(step, states) is not None:
            return
        with locked(self._output.path, self.ranks):
            manifest = self._write_files(self._path(step), states)
            self.ranks.run_on_all(self._finish, self._path(step), step, manifest | {"certificate": CERTIFICATE})

    def _write_by_framework(self, folder: Path) -> None:
        if self._saved_by_trainer == self.trainer.state.global_step:
            return
        try:
            self.trainer._save_checkpoint(self.trainer.model_wrapped, None)
        except Exception:
            if self.ranks.rank == 0:  # the disk may be full
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def _finish(self, folder: Path, step: int, manifest: Mapping[str, Any]) -> None:
        if self.ranks.rank == 0:
            write_manifest(folder, {"step": step, **manifest})
            flush(folder)
            flush(self._output.path)
            self._delete_old(manifest)

    def _delete_old(self, manifest: Mapping[str, Any]) -> None:
        """Delete the guard's checkpoints by age, and the Trainer's other ones by its limit; never the best one."""
        ours, best = self.durable_steps(), self.trainer.state.best_model_checkpoint
        others = [step for step in self._folders() if step not in ours]
        deleted = self._steps_to_delete(manifest) + (others[: -self.limit] if self.limit else [])
        for step in deleted:
            if best is None or self._path(step).name != os.path.basename(best):
                remove(self._path(step))

    def _parts(self) -> list[Any]:
        model = self.trainer.model
        if hasattr(model, "peft_config"):  # only the adapter is saved
            model = nn.ParameterList(each for each in model.parameters() if each.requires_grad)
        return [model, self.trainer.optimizer]

    def _num_kept(self, num: int) -> int:
        return super()._num_kept(num) if self._keeps_older else min(num, self.keep)

    def _steps_to_delete(self, manifest: Mapping[str, Any]) -> list[int]:
        deleted = super()._steps_to_delete(manifest)
        if self._keeps_older:
            return deleted
        staying = {*self.durable_steps()[-self.keep :], *self._pinned}.difference(deleted)
        return [step for step in self.durable_steps() if step not in staying]

    def _load_states(self, step: int, states: Mapping[str, Any]) -> None:
        folder = str(self._path(step))
        self.trainer._load_from_checkpoint(folder)
        self.trainer._load_optimizer_and_scheduler(folder)
        self.trainer._load_scaler(folder)
        self.objects["progress"].load_state_dict(states["progress"])
        self._saved_by_trainer = None

    def _folders(self) -> dict[int, Path]:
        return folders_in(self._output.path)

    def _path(self, step: int) -> Path:
        return self._output.folder(step)
