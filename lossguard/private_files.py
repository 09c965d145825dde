"""Folders and files that only their owner may read: what a run records may name data, hosts and paths."""

import os
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def make_folder(path: Path) -> None:
    """Create `path` and its missing parents, for their owner alone. Existing folders keep their permissions.

    Raises OSError.
    """
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def open_private(path: str, flags: int) -> int:
    """An `opener` for `open`: a file that it creates is its owner's alone."""
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)
