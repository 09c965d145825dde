"""Hooks that `lossguard launch` adds to the training process: they write each scalar of a tracker to a journal.

The processes of a launched command load this folder as the package `lossguard_hooks` (see `site/sitecustomize.py`),
from the launcher's installation: their own interpreter need not have Lossguard. So it imports nothing but the standard
library and itself, relatively. Before a tracker is imported it imports next to nothing, because every Python process of
the command pays for that. It starts no thread and no connection.
"""

import atexit
import os
import sys

TYPE_CHECKING = False  # without the import of typing
if TYPE_CHECKING:
    from .journal import Journal

JOURNAL_VARIABLE = "LOSSGUARD_LAUNCH"
"""The environment variable that names the journal, for all processes of the launched command."""
LAUNCHER_VARIABLE = "LOSSGUARD_LAUNCHER"
"""The environment variable with the process id of the launcher, whose child is the command itself."""

_path = ""
_journal: "Journal | None" = None


def install(path: str) -> None:
    """Hook the trackers that this process imports from now on; their scalars go to the journal at `path`."""
    global _path
    from . import imports

    _path = path
    if os.environ.get(LAUNCHER_VARIABLE) == str(os.getppid()):
        atexit.register(_note_end, os.getpid())
    sys.meta_path.insert(0, imports.HookFinder())


def _note_end(pid: int) -> None:
    """Write down how the command itself ends: a launcher that takes it over from a killed one gets no exit code."""
    if os.getpid() != pid:  # a fork
        return
    uncaught = getattr(sys, "last_type", None)
    name = "null" if uncaught is None else f'"{uncaught.__name__}"'
    try:
        fd = os.open(_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(fd, f'{{"ended":{name}}}\n'.encode())
        os.close(fd)
    except OSError:  # a full disk, for one: the end counts as unknown
        return


def shared_journal() -> "Journal":
    """The journal of this process."""
    global _journal
    if _journal is None:
        from .journal import Journal

        _journal = Journal(_path)
    return _journal


def stand_back() -> None:
    """The script calls `lossguard.init`: it reports itself, and the hooks of this process record nothing."""
    if _path:
        shared_journal().leave_to_script()
