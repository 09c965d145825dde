"""Any command that can resume from a checkpoint: the user says how.

    --restart-with generic --checkpoints 'out/step_{step}' --resume-args '--resume {checkpoint}' [--can-skip]

A command that leaves batches out reads LOSSGUARD_SKIPS, [[from, to], ..], or the file LOSSGUARD_SKIPS_FILE.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from lossguard.launch.adapters.adapter import Adapter, Resume, numbered
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.orders import Skip


class GenericAdapter(Adapter):
    """`--restart-with generic`."""

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
