"""The adapters, one for each framework: stopping and resuming its commands, and skipping in them.

The facts that an adapter relies on are from the framework's source; its docstring has their date or version.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lossguard.launch.adapters.adapter import (
    Adapter,
    Resume,
    has_option,
    is_complete_archive,
    matching,
    numbered,
    option,
    values,
    write_at_once,
)
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.orders import Ledger, Skip

TRAINER_STATE = "trainer_state.json"
OPTIMIZER = ("optimizer*", "pytorch_model_fsdp*", "global_step*")
"""Names of the Trainer's optimizer state: one file, one of each rank, or the folder of DeepSpeed."""


class HFAdapter(Adapter):
    """The Trainer of Hugging Face transformers: checkpoint-100 folders, resumed and skipped by a hook in the process.

    From its source (5.24): step n is logged as n, counted from 1; `trainer_state.json` is written after the weights,
    the optimizer and the generators. The script stays as it is: the hook in the training process
    (`hooks/transformers.py`) passes `resume_from_checkpoint` to `Trainer.train`, and leaves the skipped batches out
    below `skip_first_batches`.
    """

    name = "hf"
    pattern = r"checkpoint-(\d+)"
    first_step = 1
    can_skip = True

    def checkpoint_folder(self) -> Path:
        self.saves_when_stopped = has_option(self.command, "--enable_jit_checkpoint", "--enable-jit-checkpoint")
        missing = "the command has no --output_dir: name the Trainer's output_dir with --checkpoints DIR"
        return self._named_folder(missing, "--output_dir", "--output-dir")

    def checkpoints(self) -> list[int]:
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigurationError(f"{self.folder} is no folder: name the output_dir with --checkpoints DIR")
        found = self._found("the Trainer", "checkpoint-1", others=r"(?:iter_|step[-_])\d+")
        return [step for step, path in found.items() if _can_resume_trainer(path, step)]

    def resume(self, step: int, skips: Sequence[Skip]) -> Resume:
        path = self.folder.resolve() / f"checkpoint-{step}"
        return self._template(step, path), {"LOSSGUARD_RESUME_CHECKPOINT": str(path)}


def _can_resume_trainer(path: Path, step: int) -> bool:
    """Return True if the state is there, which is written last, and the optimizer, without which nothing resumes."""
    state = path / TRAINER_STATE
    try:
        stat = state.stat()
        is_written = _step_of(state, stat.st_mtime_ns, stat.st_size) == step
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return is_written and any(any(path.glob(pattern)) for pattern in OPTIMIZER)


@lru_cache(4096)  # it is asked for each checkpoint twice a second, and the state has the whole log
def _step_of(state: Path, mtime_ns: int, size: int) -> Any:
    """Return the step of a state that was last changed then."""
    return json.loads(state.read_bytes())["global_step"]


TRACKER = "latest_checkpointed_iteration.txt"
LOCAL = ("--non-persistent-save-interval", "--non-persistent-ckpt-type")
PARTIAL = ("--finetune", "--no-load-optim", "--no-load-rng", "--no-save-optim", "--no-save-rng")
"""Options with which a checkpoint is loaded without its iteration, its optimizer or its random state."""


class MegatronAdapter(Adapter):
    """Megatron-LM: iter_0000100 folders, `--ckpt-step`, `--iterations-to-skip`, and the tracker file.

    From its source (2026-08): iteration n is the n-th step, counted from 1; `--ckpt-step` takes precedence over the
    tracker file; a skipped iteration reads its batch and keeps its number; `--exit-signal-handler` saves on SIGTERM. A
    checkpoint counts once the tracker file names it or a later one.
    """

    name = "megatron"
    pattern = r"iter_(\d{7,})"
    first_step = 1
    can_skip = True

    def checkpoint_folder(self) -> Path:
        if has_option(self.command, *LOCAL):
            raise ConfigurationError(
                f"Megatron-LM prefers its non-persistent checkpoints to an order's: leave out {' and '.join(LOCAL)}"
            )
        if partial := [each for each in PARTIAL if has_option(self.command, each)]:
            raise ConfigurationError(
                f"Megatron-LM does not go on from its own checkpoints with {' and '.join(partial)}: leave that out, "
                "and name the first weights with --pretrained-checkpoint"
            )
        self.saves_when_stopped = has_option(self.command, "--exit-signal-handler")
        missing = "the command has no --save: give it one, or name the folder with --checkpoints"
        return self._named_folder(missing, "--save")

    def checkpoints(self) -> list[int]:
        latest = self._latest()
        if latest is None:
            self._found("Megatron-LM", f"iter_0000001 or {TRACKER}")
            return []
        return [step for step in self._whole() if step <= latest]

    def resume(self, step: int, skips: Sequence[Skip]) -> Resume:
        own = values(self.command, "--iterations-to-skip")
        skipped = [str(batch + 1) for skip in skips for batch in range(skip.skip_from, skip.skip_to)]
        arguments = ["--load", str(self.folder), "--ckpt-step", str(step)]
        if skipped:
            arguments += ["--iterations-to-skip", *dict.fromkeys([*own, *skipped])]
        return arguments, {}

    def batch_of(self, step: int, ledger: Ledger) -> int:
        return max(0, step - self.first_step)

    def discard_after(self, step: int) -> list[Path]:
        moved = super().discard_after(step)
        if (tracker := self.folder / TRACKER).exists():
            write_at_once(tracker, str(step))
        return moved

    def _latest(self) -> int | None:
        """The iteration in the tracker file; None without one. Raises ConfigurationError.

        Megatron-LM writes the file in place, after the checkpoint: a kill in between leaves it empty.
        """
        try:
            text = (self.folder / TRACKER).read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not text:
            return max(self._whole(), default=None)
        if not text.isdecimal():
            raise ConfigurationError(f"{self.folder / TRACKER} holds {text!r:.80}, and no iteration to resume from")
        return int(text)

    def _whole(self) -> list[int]:
        """The iterations with the file that makes a checkpoint one of the formats torch_dist, torch_dcp or torch."""
        last = ("metadata.json", ".metadata", "mp_rank_*/model_optim_rng.pt")
        found = matching(self.folder, self.pattern)
        return [step for step, path in found if any(any(path.glob(name)) for name in last)]


class TorchtitanAdapter(Adapter):
    """torchtitan: step-100 folders and `--checkpoint.load_step`.

    From its source (2026-08): step n is the n-th step, counted from 1; a folder counts once it has `.metadata`, which
    is written last; any name with step-N in it counts, so discarded folders must leave the folder. A non-finite loss
    ends the process. Its loader has a state and no skip.
    """

    name = "torchtitan"
    pattern = r"step-(\d+)"
    first_step = 1

    def checkpoint_folder(self) -> Path:
        if self.options.checkpoints is not None:
            return Path(self.options.checkpoints)
        dump = option(self.command, "--dump_folder", "--dump-folder", "--job.dump_folder") or "./outputs"
        return Path(dump) / (option(self.command, "--checkpoint.folder") or "checkpoint")

    def checkpoints(self) -> list[int]:
        found = self._found("torchtitan", "step-1").items()
        return [step for step, path in found if (path / ".metadata").exists()]

    def resume(self, step: int, skips: Sequence[Skip]) -> Resume:
        return [f"--checkpoint.load_step={step}"], {}


class NanochatAdapter(Adapter):
    """nanochat: model_000100.pt, meta_000100.json and optim_000100_rank0.pt, and `--resume-from-step`.

    From its source (2026-07): step n is counted from 0 and saved before it is trained; every rank writes its own part
    of the optimizer, last. Its loader streams, and has no skip. Without `--save-every` it saves only at the end.
    """

    name = "nanochat"
    pattern = r"model_(\d{6,})\.pt"
    files = r"(?:model|meta|optim)_(\d{6,})(?:_rank\d+)?\.(?:pt|json)"

    def checkpoint_folder(self) -> Path:
        if int(option(self.command, "--save-every") or -1) <= 0:
            raise ConfigurationError("the command has no --save-every: nanochat then saves only at the end of the run")
        if self.options.checkpoints is not None:
            return Path(self.options.checkpoints)
        base = self.environment.get("NANOCHAT_BASE_DIR") or Path.home() / ".cache" / "nanochat"
        tag = option(self.command, "--model-tag") or f"d{option(self.command, '--depth') or 20}"
        return Path(base) / "base_checkpoints" / tag

    def checkpoints(self) -> list[int]:
        models = self._found("nanochat", "model_000001.pt")
        metas = numbered(self.folder, r"meta_(\d{6,})\.json")
        parts = {step: sorted(self.folder.glob(f"optim_{step:06d}_rank*.pt")) for step in models}
        num_ranks = max(map(len, parts.values()), default=0)
        return [
            step
            for step in models
            if step in metas and len(parts[step]) == num_ranks > 0 and all(map(is_complete_archive, parts[step]))
        ]

    def resume(self, step: int, skips: Sequence[Skip]) -> Resume:
        return [f"--resume-from-step={step}"], {}


class GenericAdapter(Adapter):
    """Any command that can resume from a checkpoint: the user says how.

    --restart-with generic --checkpoints 'out/step_{step}' --resume-args '--resume {checkpoint}' [--can-skip]

    A command that leaves batches out reads LOSSGUARD_SKIPS, [[from, to], ..], or the file LOSSGUARD_SKIPS_FILE.
    """

    name = "generic"

    def checkpoint_folder(self) -> Path:
        pattern, resume = self.options.checkpoints or "", self.options.resume_args or ""
        path = Path(pattern)
        if pattern.count("{step}") != 1 or "{step}" not in path.name:
            raise ConfigurationError(
                f"--checkpoints {pattern!r} must have {{step}} once, in its last part, as in 'out/step_{{step}}'"
            )
        if "{checkpoint}" not in resume and "{step}" not in resume:
            raise ConfigurationError(
                f"--resume-args {resume!r} must have {{checkpoint}} or {{step}}, as in '--resume {{checkpoint}}'"
            )
        self.can_skip = self.options.can_skip
        before, _, after = path.name.partition("{step}")
        self.pattern = rf"{re.escape(before)}(\d+){re.escape(after)}"
        return path.parent

    def checkpoints(self) -> list[int]:
        return [*numbered(self.folder, self.pattern)]

    def resume(self, step: int, skips: Sequence[Skip]) -> Resume:
        path = numbered(self.folder, self.pattern)[step]
        return self._template(step, path), {"LOSSGUARD_RESUME_STEP": str(step)}


ADAPTERS: dict[str, type[Adapter]] = {
    each.name: each for each in (HFAdapter, MegatronAdapter, TorchtitanAdapter, NanochatAdapter, GenericAdapter)
}
"""The values of --restart-with, and their adapters."""
