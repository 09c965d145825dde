"""Megatron-LM: iter_0000100 folders, `--ckpt-step`, `--iterations-to-skip`, and the tracker file.

From its source (2026-08): iteration n is the n-th step, counted from 1; `--ckpt-step` takes precedence over the tracker
file; a skipped iteration reads its batch and keeps its number; `--exit-signal-handler` saves on SIGTERM. A checkpoint
counts once the tracker file names it or a later one.
"""

from collections.abc import Sequence
from pathlib import Path

from lossguard.launch.adapters.adapter import Adapter, Resume, has_option, matching, values, write_at_once
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.orders import Ledger, Skip

TRACKER = "latest_checkpointed_iteration.txt"
LOCAL = ("--non-persistent-save-interval", "--non-persistent-ckpt-type")
PARTIAL = ("--finetune", "--no-load-optim", "--no-load-rng", "--no-save-optim", "--no-save-rng")
"""Options with which a checkpoint is loaded without its iteration, its optimizer or its random state."""


class MegatronAdapter(Adapter):
    """`--restart-with megatron`."""

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
        found = matching(self.folder, self.pattern)
        return [step for step, path in found if step <= latest and _is_whole(path)]

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
            return max((step for step, path in matching(self.folder, self.pattern) if _is_whole(path)), default=None)
        if not text.isdecimal():
            raise ConfigurationError(f"{self.folder / TRACKER} holds {text!r:.80}, and no iteration to resume from")
        return int(text)


def _is_whole(path: Path) -> bool:
    """Return True if it has the file that makes it one of the formats torch_dist, torch_dcp or torch."""
    return any(any(path.glob(name)) for name in ("metadata.json", ".metadata", "mp_rank_*/model_optim_rng.pt"))
