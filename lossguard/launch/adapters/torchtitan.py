"""torchtitan: step-100 folders and `--checkpoint.load_step`.

From its source (2026-08): step n is the n-th step, counted from 1; a folder counts once it has `.metadata`, which is
written last; any name with step-N in it counts, so discarded folders must leave the folder. A non-finite loss ends the
process. Its loader has a state and no skip.
"""

from collections.abc import Sequence
from pathlib import Path

from lossguard.launch.adapters.adapter import Adapter, Resume, not_a_folder_of, numbered, option
from lossguard.vocabulary.orders import Skip

FOLDER = r"step-(\d+)"


class TorchtitanAdapter(Adapter):
    """`--restart-with torchtitan`."""

    name = "torchtitan"
    first_step = 1

    def checkpoint_folder(self) -> Path:
        if self.options.checkpoints is not None:
            return Path(self.options.checkpoints)
        dump = option(self.command, "--dump_folder", "--dump-folder", "--job.dump_folder") or "./outputs"
        return Path(dump) / (option(self.command, "--checkpoint.folder") or "checkpoint")

    def checkpoints(self) -> dict[int, list[Path]]:
        found = numbered(self.folder, FOLDER)
        if not found and self.folder.exists() and (names := [path.name for path in self.folder.iterdir()]):
            raise not_a_folder_of("torchtitan", self.folder, "step-1", names)
        return {step: [path] for step, path in found.items() if (path / ".metadata").exists()}

    def late_paths(self, step: int) -> list[Path]:
        return [path for number, path in sorted(numbered(self.folder, FOLDER).items()) if number > step]

    def resume(self, step: int | None, skips: Sequence[Skip]) -> Resume:
        return Resume(() if step is None else (f"--checkpoint.load_step={step}",))
