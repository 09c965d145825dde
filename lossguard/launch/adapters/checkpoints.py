"""Checkpoints on the disk by their step, and how those of rolled-back steps are put aside."""

import re
from pathlib import Path

DISCARDED = ".discarded"
"""Ending of the folder beside the checkpoints that takes the discarded ones: no framework looks there."""


def numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """The entries of `folder` whose whole name matches `pattern`, by the number in its first group.

    Empty for a folder that does not exist. Raises OSError when it cannot be read.
    """
    if not folder.exists():
        return {}
    matches = ((re.fullmatch(pattern, path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in matches if match is not None}


def move_aside(path: Path, folder: Path) -> Path:
    """Move a checkpoint into the folder beside `folder` that takes the discarded ones. Returns its new path."""
    aside = folder.with_name(folder.name + DISCARDED)
    aside.mkdir(parents=True, exist_ok=True)
    target = aside / path.name
    number = 2
    while target.exists():
        target = aside / f"{path.name}-{number}"
        number += 1
    return path.rename(target)


def is_complete_archive(path: Path) -> bool:
    """Whether a file that `torch.save` wrote is complete: the directory of a zip archive stands at its end."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1024))
        return b"PK\x05\x06" in file.read()
