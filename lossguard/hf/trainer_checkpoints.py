"""The Trainer's own checkpoints as those to which a guard rolls back.

    <output_dir>/checkpoint-50/manifest.json     checksums of all files, and digests of what was saved
                               guard.json        the guard's state, and what the Trainer leaves out of its own
                               model.safetensors, optimizer.pt ...    as the Trainer writes them
    <output_dir>/discarded-checkpoint-100        what the last rollback has left, under a name that the Trainer ignores

A folder without a manifest is no checkpoint of the guard. The Trainer writes trainer_state.json last: a folder without
it is one that a killed process has not finished, and is renamed too, because the Trainer would resume from it.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from lossguard.distributed import current_ranks
from lossguard.errors import CheckpointError
from lossguard.folder_lock import LOCK_WAIT, FolderLock
from lossguard.hf.hooks import Hooks
from lossguard.hf.progress import Part, Progress
from lossguard.log_once import logger
from lossguard.torch.digest import check_digests, digest
from lossguard.torch.directory_lock import lock_on_all_ranks
from lossguard.torch.files import fingerprint, write_bytes
from lossguard.torch.manifest import MANIFEST, read_manifest, write_manifest
from lossguard.torch.retention import steps_to_delete

NAME = re.compile(r"checkpoint-(\d+)")
FORMAT = "transformers"
GUARD = "guard.json"


class TrainerCheckpoints:
    """A CheckpointStore of the folders that `trainer` writes. `keep`: as for `Checkpoints`.

    While the training runs, it deletes none of them itself (`save_total_limit`): a rollback may need them. That limit
    holds for those that the Trainer saves in addition to the guard.
    """

    def __init__(self, trainer: Trainer, progress: Progress, *, keep: int) -> None:
        self.trainer: Any = trainer
        if trainer.args.save_only_model:
            raise ValueError("save_only_model=True leaves the optimizer out: a guard could not restore it (store='hf')")
        self.progress, self.keep, self.limit = progress, keep, trainer.args.save_total_limit
        self.ranks = current_ranks()
        self.directory = Path(str(trainer.args.output_dir))
        self.objects = {name: Part(trainer, name) for name in ("model", "optimizer", "lr_scheduler")}
        self._pinned: frozenset[int] = frozenset()
        self._saved_by_trainer: int | None = None  # the step whose folder holds the present state
        self._lock: FolderLock | None = None
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.ranks.rank == 0:
            for step, folder in self._folders().items():
                if not (folder / "trainer_state.json").is_file():
                    logger.warning("%s is incomplete, and is renamed: the Trainer would resume from it", folder)
                    self._set_aside(step, "incomplete")

    def install(self, hooks: Hooks) -> None:
        """While a training runs: the Trainer deletes nothing, and what it saves itself is not saved twice."""
        self._saved_by_trainer = None
        hooks.set(self.trainer.args, "save_total_limit", None)
        hooks.wrap(self.trainer, "evaluate", self._evaluate)
        hooks.wrap(self.trainer, "_save_checkpoint", self._save_checkpoint)

    def lock(self, *, wait: float = LOCK_WAIT) -> None:
        """Keep other guards from writing the folder."""
        self._lock = lock_on_all_ranks(self.directory, self.ranks, wait=wait)

    def unlock(self) -> None:
        """Let others write it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def steps(self) -> list[int]:
        """Steps of the folders with a manifest, ascending."""
        return [step for step, folder in self._folders().items() if (folder / MANIFEST).is_file()]

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Have the Trainer save, unless it has just done so, and write the manifest last."""
        if self._saved_by_trainer != step:
            try:
                self.ranks.run_on_all(self.trainer._save_checkpoint, self.trainer.model_wrapped, None)
            except Exception:
                if self.ranks.rank == 0:  # the disk may be full
                    shutil.rmtree(self._folder(step), ignore_errors=True)
                raise
        progress = self.progress.state_dict()
        loss_sum, tokens = progress.pop("loss_sum"), progress["tokens"]
        progress["tokens"] = None if tokens is None else int(tokens)
        sums = self.ranks.gather(None if loss_sum is None else loss_sum.item())
        self.ranks.run_on_all(self._seal, step, {"state": state, "progress": progress, "loss_sums": sums})

    def settle(self, wait: bool = False) -> bool:
        """Nothing is saved in the background."""
        return False

    def pin(self, steps: Iterable[int]) -> None:
        """Keep these, whatever their age."""
        self._pinned = frozenset(steps)

    def load(self, step: int) -> dict[str, Any]:
        """See `CheckpointStore.load`: a folder with a damaged file is skipped."""
        for candidate in reversed([known for known in self.ranks.broadcast(self.steps()) if known <= step]):
            try:
                manifest = self.ranks.run_on_all(self._checked_manifest, candidate)
            except CheckpointError as problem:
                if self.ranks.rank == 0:
                    logger.warning("skipping the checkpoint of step %d: %s", candidate, problem)
                continue
            content = json.loads((self._folder(candidate) / GUARD).read_bytes())
            self.ranks.run_on_all(self._restore, candidate, manifest, content)
            return dict(content["state"])
        raise CheckpointError(f"{self.directory} holds no intact checkpoint at or before step {step}")

    def discard_after(self, step: int) -> None:
        """Rename later ones, of the Trainer too: `resume_from_checkpoint=True` takes the highest number."""
        later = [known for known in self._folders() if known > step]
        if later and self.ranks.rank == 0:
            for earlier in self.directory.glob("discarded-checkpoint-*"):
                shutil.rmtree(earlier)
            for each in later:
                self._set_aside(each, "discarded")

    def _save_checkpoint(self, original: Any, *arguments: Any, **options: Any) -> None:
        step = self.trainer.state.global_step
        manifest = self._folder(step) / MANIFEST
        if self.ranks.rank == 0 and manifest.exists():
            manifest.unlink()  # it is no checkpoint while it is written anew
        original(*arguments, **options)
        self._saved_by_trainer = step

    def _evaluate(self, original: Any, *arguments: Any, **options: Any) -> Any:
        """An evaluation draws random numbers, and may find the best metric: what was saved before is out of date."""
        self._saved_by_trainer = None
        return original(*arguments, **options)

    def _seal(self, step: int, content: Mapping[str, Any]) -> None:
        if self.ranks.rank > 0:
            return
        folder = self._folder(step)
        write_bytes(folder / GUARD, json.dumps(content).encode())
        files = {
            str(each.relative_to(folder)): fingerprint(each) for each in sorted(folder.rglob("*")) if each.is_file()
        }
        objects = {name: digest(each.state_dict()) for name, each in self.objects.items()}
        write_manifest(folder, {"step": step, "format": FORMAT, "files": files, "objects": objects})
        self._delete_old()

    def _delete_old(self) -> None:
        own = self.steps()
        others = [step for step in self._folders() if step not in own]
        best = self.trainer.state.best_model_checkpoint
        deleted = steps_to_delete(own, keep=self.keep, pinned=self._pinned)
        if self.limit is not None:
            deleted += others[: -self.limit]
        for step in deleted:
            if best is None or self._folder(step).name != os.path.basename(best):
                shutil.rmtree(self._set_aside(step, "deleted"))

    def _checked_manifest(self, step: int) -> dict[str, Any]:
        folder = self._folder(step)
        try:
            manifest = read_manifest(folder)
            if manifest["format"] != FORMAT or manifest["step"] != step:
                raise CheckpointError(f"its manifest names step {manifest['step']} and format {manifest['format']}")
            for name, known in manifest["files"].items():
                if fingerprint(folder / name) != known:
                    raise CheckpointError(f"{name} is damaged (checksum)")
        except CheckpointError:
            raise
        except Exception as problem:  # unreadable in whatever way
            raise CheckpointError(f"{type(problem).__name__}: {problem}") from problem
        return manifest

    def _restore(self, step: int, manifest: Mapping[str, Any], content: Mapping[str, Any]) -> None:
        trainer, folder = self.trainer, str(self._folder(step))
        trainer._load_from_checkpoint(folder)
        trainer._load_optimizer_and_scheduler(folder)
        trainer._load_scaler(folder)
        sums = content["loss_sums"]
        mine = sums[self.ranks.rank] if self.ranks.rank < len(sums) else None
        loss_sum = None if mine is None else torch.tensor(mine)
        self.progress.load_state_dict({**content["progress"], "loss_sum": loss_sum})
        for name, instance in self.objects.items():
            check_digests(name, step, manifest["objects"][name], digest(instance.state_dict()))
        trainer._load_rng_state(folder)
        self._saved_by_trainer = None

    def _folders(self) -> dict[int, Path]:
        found = ((NAME.fullmatch(path.name), path) for path in self.directory.glob("checkpoint-*"))
        return {step: path for step, path in sorted((int(match[1]), path) for match, path in found if match)}

    def _folder(self, step: int) -> Path:
        return self.directory / f"checkpoint-{step}"

    def _set_aside(self, step: int, why: str) -> Path:
        folder = self._folder(step)
        aside = folder.with_name(f"{why}-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        return folder.rename(aside)
