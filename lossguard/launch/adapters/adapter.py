"""What the supervisor of a command needs to know of its framework.

An adapter counts optimizer steps as its framework's checkpoints do: the checkpoint of n holds the state after n steps.
Its trackers may number the steps from 1; then the first step of the run is 1, and that checkpoint is the state before
the step n + 1 (`Adapter.first_step`).
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lossguard.errors import ConfigurationError
from lossguard.launch.adapters.checkpoints import move_aside
from lossguard.ledger import Ledger, Skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the user says of a command, beyond the name of the adapter."""

    checkpoints: str | None = None
    """Where the checkpoints are; with the adapter `generic` a pattern such as out/step_{step}."""
    resume_args: str | None = None
    """Arguments that resume the command, such as "--resume {checkpoint}"; {step} is its step."""
    can_skip: bool = False
    """Whether a command of the adapter `generic` reads LOSSGUARD_SKIPS or LOSSGUARD_SKIPS_FILE."""
    first_step: int | None = None
    """The number of the first step in what is logged, 0 or 1; None: as the framework counts."""


@dataclass(frozen=True, slots=True)
class Resume:
    """What is added to the command for its next start."""

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class Adapter:
    """The base of all adapters; a framework overrides what is different."""

    name: str
    first_step = 0
    """The number of the first step in what the framework logs."""
    can_skip = False
    """Whether the command can leave batches out. Otherwise it is only rewound."""
    saves_when_stopped = False
    """Whether it writes a checkpoint of its present state, which is to be discarded, when it gets SIGTERM."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], options: Options) -> None:
        """Raises ConfigurationError when the command does not say where its checkpoints are."""
        self.command, self.environment, self.options = list(command), dict(environment), options
        self.folder = self.checkpoint_folder()
        if options.first_step is not None:
            self.first_step = options.first_step

    def checkpoint_folder(self) -> Path:
        """The folder that holds the checkpoints; it need not exist yet."""
        raise NotImplementedError

    def checkpoints(self) -> dict[int, list[Path]]:
        """The whole checkpoints by their number of steps: the paths of each. Raises ConfigurationError when the
        folder is not what this framework writes."""
        raise NotImplementedError

    def late_paths(self, step: int) -> list[Path]:
        """All paths of checkpoints after `step`, incomplete ones too."""
        raise NotImplementedError

    def resume(self, step: int | None, skips: Sequence[Skip]) -> Resume:
        """How the command is started from the checkpoint of `step` (None: from its beginning), without `skips`.

        `skips` count batches from 0, one for each optimizer step.
        """
        raise NotImplementedError

    def batch_of(self, step: int, ledger: Ledger) -> int:
        """The batch of a step that the framework logs, from 0: the data goes on without what is skipped."""
        return ledger.nth_free(max(0, step - self.first_step))

    def discard_after(self, step: int) -> list[Path]:
        """Move the checkpoints after `step` out of the framework's sight. Returns where they are now. Raises OSError.

        `step` is the newest one then, for the framework too.
        """
        moved = [move_aside(path, self.folder) for path in self.late_paths(step)]
        self.point_at(step)
        return moved

    def point_at(self, step: int) -> None:
        """Make `step` the checkpoint that the framework takes for its newest one. Raises OSError."""

    def _template(self, step: int, path: Path) -> tuple[str, ...]:
        """The user's own arguments for resuming."""
        return tuple(
            each.replace("{checkpoint}", str(path)).replace("{step}", str(step))
            for each in shlex.split(self.options.resume_args or "")
        )


def skips_in_environment(skips: Sequence[Skip], file: Path | None) -> dict[str, str]:
    """The skipped ranges for a command that reads them: LOSSGUARD_SKIPS is [[from, to], ..], the file has reasons too.

    Raises OSError when the file cannot be written.
    """
    ranges = {"LOSSGUARD_SKIPS": json.dumps([[skip.skip_from, skip.skip_to] for skip in skips])}
    if file is None:
        return ranges
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps([asdict(skip) for skip in skips]))
    partial.replace(file)
    return ranges | {"LOSSGUARD_SKIPS_FILE": str(file)}


def not_a_folder_of(name: str, folder: Path, expected: str, found: Sequence[str]) -> ConfigurationError:
    """The error for a folder that another program wrote."""
    some = ", ".join(sorted(found)[:3])
    return ConfigurationError(
        f"{folder} holds no checkpoints of {name}: {expected} was expected, and {some} is there; "
        "name the right folder with --checkpoints"
    )
