"""nanochat: model_000100.pt, meta_000100.json and optim_000100_rank0.pt, and `--resume-from-step`.

From its source (2026-07): step n is counted from 0 and saved before it is trained; every rank writes its own part of
the optimizer, last. Its loader streams, and has no skip. Without `--save-every` it saves only at the end.
"""

from collections.abc import Sequence
from pathlib import Path

from lossguard.launch.adapters.adapter import Adapter, Resume, is_complete_archive, numbered, option
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.orders import Skip

META = r"meta_(\d{6,})\.json"
DEFAULT_DEPTH = "20"


class NanochatAdapter(Adapter):
    """`--restart-with nanochat`."""

    name = "nanochat"
    pattern = r"model_(\d{6,})\.pt"
    files = r"(?:model|meta|optim)_(\d{6,})(?:_rank\d+)?\.(?:pt|json)"

    def checkpoint_folder(self) -> Path:
        if int(option(self.command, "--save-every") or -1) <= 0:
            raise ConfigurationError("the command has no --save-every: nanochat then saves only at the end of the run")
        if self.options.checkpoints is not None:
            return Path(self.options.checkpoints)
        base = self.environment.get("NANOCHAT_BASE_DIR") or Path.home() / ".cache" / "nanochat"
        tag = option(self.command, "--model-tag") or f"d{option(self.command, '--depth') or DEFAULT_DEPTH}"
        return Path(base) / "base_checkpoints" / tag

    def checkpoints(self) -> list[int]:
        models, metas = self._found("nanochat", "model_000001.pt"), numbered(self.folder, META)
        parts = {step: sorted(self.folder.glob(f"optim_{step:06d}_rank*.pt")) for step in models}
        num_ranks = max(map(len, parts.values()), default=0)
        return [
            step
            for step in models
            if step in metas and len(parts[step]) == num_ranks > 0 and all(map(is_complete_archive, parts[step]))
        ]

    def resume(self, step: int, skips: Sequence[Skip]) -> Resume:
        return [f"--resume-from-step={step}"], {}
