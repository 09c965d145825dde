"""A file that is there whole, or not at all."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

MOST_LETTERS = 50
"""Of the name, in that of the part: a name may be as long as the file system takes."""


class CannotWrite(Exception):
    """One sentence that says what stands in the way."""


def check_writable(path: Path) -> None:
    """Raises CannotDeliver where no file can be written, before any work is done for it."""
    folder = path.parent
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise CannotWrite(f"{path} is a folder; name a file in it")
    except FileNotFoundError:
        if not folder.is_dir():
            raise CannotWrite(f"there is no folder {folder}; make it, or name another file with -o") from None
    except OSError as error:  # a folder that one may not enter, a name that is too long
        raise CannotWrite(f"cannot write {path}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CannotWrite(f"cannot write in the folder {folder}: permission denied")


def write_atomically(path: Path, make: Callable[[Path], None]) -> None:
    """What `make` writes into a file beside it takes the place of `path` when it is done. Raises CannotDeliver."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:MOST_LETTERS]}.", suffix=".part", dir=path.parent)
        part = Path(name)
        try:
            os.fchmod(handle, 0o666 & ~_umask())  # mkstemp's own is for its owner alone
            os.close(handle)
            make(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
