"""The Trainer of Hugging Face transformers: checkpoint-100 folders, resumed and skipped by a hook in the process.

From its source (5.24): step n is logged as n, counted from 1; `trainer_state.json` is written after the weights, the
optimizer and the generators. The script stays as it is: the hook in the training process (`hooks/transformers.py`)
passes `resume_from_checkpoint` to `Trainer.train`, and leaves the skipped batches out below `skip_first_batches`.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lossguard.launch.adapters.adapter import Adapter, Resume, has_option
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.orders import Skip

STATE = "trainer_state.json"
OPTIMIZER = ("optimizer*", "pytorch_model_fsdp*", "global_step*")
"""Names of the optimizer's state: one file, one of each rank, or the folder of DeepSpeed."""
RESUME_VARIABLE = "LOSSGUARD_RESUME_CHECKPOINT"


class HFAdapter(Adapter):
    """`--restart-with hf`."""

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
        return [step for step, path in found.items() if _is_whole(path, step)]

    def resume(self, step: int, skips: Sequence[Skip]) -> Resume:
        path = self.folder.resolve() / f"checkpoint-{step}"
        return self._template(step, path), {RESUME_VARIABLE: str(path)}


def _is_whole(path: Path, step: int) -> bool:
    """Return True if the state is there, which is written last, and the optimizer, without which nothing resumes."""
    state = path / STATE
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
