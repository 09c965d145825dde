"""The files of a source: regular ones in the folder that is read. A link that leads out of it is not followed."""

import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from lossguard.sources.source_run import BadSource
from lossguard.spool.folders import paths_below
from lossguard.vocabulary.errors import LogOnce

MAX_FILES = 100_000
"""Maximum files below a path that fit a pattern."""

_log_once = LogOnce()


def files_below(folder: Path, pattern: str = "*", *, deep: bool = True) -> list[Path]:
    """Return the regular files in a folder (`deep`: and in its subfolders) that fit a pattern, sorted.

    Raises BadSource for more than MAX_FILES entries.
    """
    entries = paths_below(folder, pattern) if deep else folder.glob(pattern)
    found = list(islice(entries, MAX_FILES + 1))
    if len(found) > MAX_FILES:
        raise BadSource(f"{folder} holds more than {MAX_FILES:,} files: name the folders in it one by one")
    return sorted(path for path in found if path.is_file() and lies_in(path, folder))


def lies_in(path: Path, folder: Path) -> bool:
    """Return True if `path` lies in `folder` when all links are resolved; say once per folder that one leads out."""
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        return True
    _log_once.warn_once(str(folder), f"{path} is not read, nor other links that lead out of {folder}")
    return False


def read_beginning(path: Path, size: int) -> bytes:
    """Return at most `size` bytes of a file. Raises OSError."""
    with opened(path) as file:
        return file.read(size)


def opened(path: Path) -> BinaryIO:
    """Open a regular file. Raises OSError, also for what would block, such as a pipe that has taken its place."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "it is no regular file")
    return file


def lines_of(path: Path, max_bytes: int) -> Iterator[str]:
    """Yield the lines of a text file with their ends. Raises OSError, and BadSource for a line beyond `max_bytes`."""
    with opened(path) as file:
        while line := file.readline(max_bytes + 1):
            if len(line) > max_bytes:
                raise BadSource(f"{path} has a line of more than {max_bytes:,} bytes")
            yield line.decode("utf-8", errors="replace")
