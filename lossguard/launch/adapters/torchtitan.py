"""torchtitan: step-100 folders and `--checkpoint.load_step`.

From its source (2026-08): step n is the n-th step, counted from 1; a folder counts once it has `.metadata`, which is
written last; any name with step-N in it counts, so discarded folders must leave the folder. A non-finite loss ends the
process. Its loader has a state and no skip.
"""

from collections.abc import Sequence
from pathlib import Path

from lossguard.launch.adapters.adapter import Adapter, Resume, option
from lossguard.vocabulary.orders import Skip


class TorchtitanAdapter(Adapter):
    """`--restart-with torchtitan`."""

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
