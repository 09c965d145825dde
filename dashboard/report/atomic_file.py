"""A file that is written completely or not at all."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

MAX_NAME_LETTERS = 50
"""Maximum letters of the name in that of the partial file: file systems limit names."""


class CannotWrite(Exception):
    """The message is one sentence with the reason."""


def check_writable(path: Path) -> None:
    """Raises CannotWrite where no file can be written; to be called before any work is done."""
    folder = path.parent
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise CannotWrite(f"{path} is a folder; name a file in it")
    except FileNotFoundError:
        if not folder.is_dir():
            raise CannotWrite(f"there is no folder {folder}; make it, or name another file with -o") from None
    except OSError as error:  # no permission to enter the folder, a name that is too long
        raise CannotWrite(f"cannot write {path}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CannotWrite(f"cannot write in the folder {folder}: permission denied")


def write_atomically(path: Path, make: Callable[[Path], None]) -> None:
    """`make` writes a temporary file in the same folder, which then replaces `path`. Raises CannotWrite."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:MAX_NAME_LETTERS]}.", suffix=".part", dir=path.parent)
        part = Path(name)
        try:
            os.fchmod(handle, 0o666 & ~_umask())  # mkstemp makes it readable for its owner only
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
