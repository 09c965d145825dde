"""The framework of a command, as its supervisor knows it: options, and checkpoints on the disk."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.orders import Ledger, Skip

# Options in a command line that is written for another program.


def option(command: Sequence[str], *names: str) -> str | None:
    """The value of the last option of one of these names, as `--name value` or `--name=value`; None without one."""
    found = None
    for place, argument in enumerate(command):
        name, equals, value = argument.partition("=")
        if name in names:
            if equals:
                found = value
            elif place + 1 < len(command):
                found = command[place + 1]
    return found


def has_option(command: Sequence[str], *names: str) -> bool:
    """Return True if one of these options is given, with a value or without."""
    return any(argument.partition("=")[0] in names for argument in command)


def values(command: Sequence[str], name: str) -> list[str]:
    """The values of an option that takes several, up to the next option."""
    found: list[str] = []
    for place, argument in enumerate(command):
        if argument == name:
            for value in command[place + 1 :]:
                if value.startswith("-"):
                    break
                found.append(value)
        elif argument.startswith(f"{name}="):
            found.append(argument.partition("=")[2])
    return found


# Checkpoints on the disk, by their step. Those of rolled-back steps are put aside.

DISCARDED = ".discarded"
"""Ending of the folder beside the checkpoints that takes the discarded ones: no framework looks there."""


def matching(folder: Path, pattern: str) -> list[tuple[int, Path]]:
    """The entries of `folder` whose whole name matches `pattern`, sorted by the number in its first group.

    Empty for a folder that does not exist. Raises OSError when it cannot be read.
    """
    matches = [(re.fullmatch(pattern, path.name), path) for path in (folder.iterdir() if folder.exists() else ())]
    return sorted((int(match[1]), path) for match, path in matches if match is not None)


def numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Number -> entry of `folder` whose whole name matches `pattern`, where there is one entry of each number."""
    return dict(matching(folder, pattern))


def move_aside(path: Path, folder: Path) -> Path:
    """Move a checkpoint into the folder beside `folder` that takes the discarded ones. Returns its new path."""
    beside = folder.resolve()  # "." and ".." have no name to add to
    aside = beside.with_name(beside.name + DISCARDED)
    aside.mkdir(parents=True, exist_ok=True)
    target = aside / path.name
    number = 2
    while target.exists():
        target = aside / f"{path.name}-{number}"
        number += 1
    return path.rename(target)


def is_complete_archive(path: Path) -> bool:
    """Return True if a file that `torch.save` wrote is complete: the directory of a zip archive stands at its end."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1024))
        return b"PK\x05\x06" in file.read()


# Adapters.
#
# An adapter counts optimizer steps as its framework's checkpoints do: the checkpoint of n holds the state after n
# steps. Its trackers may number the steps from 1; then the first step of the run is 1, and that checkpoint is the state
# before the step n + 1 (`Adapter.first_step`).


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The user's settings of a command, beyond the name of the adapter."""

    checkpoints: str | None = None
    """Folder of the checkpoints; with the adapter `generic` a pattern such as out/step_{step}."""
    resume_args: str | None = None
    """Arguments that resume the command, such as "--resume {checkpoint}"; {step} is its step."""
    can_skip: bool = False
    """True if a command of the adapter `generic` reads LOSSGUARD_SKIPS or LOSSGUARD_SKIPS_FILE."""
    first_step: int | None = None
    """The number of the first step in what is logged, 0 or 1; None: as the framework counts."""


Resume = tuple[list[str], dict[str, str]]
"""Arguments and environment variables that are added to a command for its next start."""


class Adapter:
    """The base of all adapters; a framework overrides what is different."""

    name: str
    pattern: str
    """Regular expression of the names of its checkpoints, with their number of steps as its first group."""
    files = ""
    """Regular expression of the names of all their files, where a checkpoint is more than one entry of the folder."""
    first_step = 0
    """The number of the first step in what the framework logs."""
    can_skip = False
    """True if the command can leave batches out. Otherwise it is only rewound."""
    saves_when_stopped = False
    """True if it writes a checkpoint of its present state, which is to be discarded, when it gets SIGTERM."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], options: Options) -> None:
        """Raises ConfigurationError when the command does not say where its checkpoints are."""
        self.command, self.environment, self.options = list(command), dict(environment), options
        self.folder = self.checkpoint_folder()
        if options.first_step is not None:
            self.first_step = options.first_step

    def checkpoint_folder(self) -> Path:
        """The folder that holds the checkpoints; it need not exist yet."""
        raise NotImplementedError

    def _named_folder(self, missing: str, *options: str) -> Path:
        """The folder that the user or an option of the command names; ConfigurationError(`missing`) without one."""
        folder = self.options.checkpoints or option(self.command, *options)
        if folder is None:
            raise ConfigurationError(missing)
        return Path(folder)

    def checkpoints(self) -> list[int]:
        """The numbers of steps of the whole checkpoints. Raises ConfigurationError when the folder is not what this
        framework writes."""
        raise NotImplementedError

    def saved_at(self, step: int) -> float:
        """Return when the newest file of a checkpoint was written, unix seconds. Raises OSError."""
        paths = [path for number, path in matching(self.folder, self.files or self.pattern) if number == step]
        files = [each for path in paths for each in (path, *(path.iterdir() if path.is_dir() else ()))]
        return max((each.stat().st_mtime for each in files), default=0.0)

    def late_paths(self, step: int) -> list[Path]:
        """Return all paths of checkpoints after `step`, incomplete ones too."""
        return [path for number, path in matching(self.folder, self.files or self.pattern) if number > step]

    def _found(self, framework: str, expected: str, others: str = ".*") -> dict[int, Path]:
        """Return the checkpoints by number, whole or not. Raises ConfigurationError where only files are that another
        program wrote: their names match `others`."""
        found = numbered(self.folder, self.pattern)
        if not found and self.folder.exists():
            names = sorted(path.name for path in self.folder.iterdir() if re.fullmatch(others, path.name))
            if names:
                raise ConfigurationError(
                    f"{self.folder} holds no checkpoints of {framework}: {expected} was expected, not "
                    f"{', '.join(names[:3])}; use --checkpoints"
                )
        return found

    def resume(self, step: int, skips: Sequence[Skip]) -> Resume:
        """Return how the command is started from the checkpoint of `step`, without `skips`.

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
        return [move_aside(path, self.folder) for path in self.late_paths(step)]

    def _template(self, step: int, path: Path) -> list[str]:
        """The user's own arguments for resuming."""
        given = shlex.split(self.options.resume_args or "")
        return [each.replace("{checkpoint}", str(path)).replace("{step}", str(step)) for each in given]


def skips_in_environment(skips: Sequence[Skip], file: Path) -> dict[str, str]:
    """The skipped ranges for a command that reads them: LOSSGUARD_SKIPS is [[from, to], ..], the file has reasons too.

    Raises OSError when the file cannot be written.
    """
    write_at_once(file, json.dumps([asdict(skip) for skip in skips]))
    ranges = json.dumps([[skip.skip_from, skip.skip_to] for skip in skips])
    return {"LOSSGUARD_SKIPS": ranges, "LOSSGUARD_SKIPS_FILE": str(file)}


def write_at_once(file: Path, text: str) -> None:
    """Write a file that whoever reads it finds whole, as it was or as it is. Raises OSError."""
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(file)
