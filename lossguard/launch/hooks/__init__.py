"""What `lossguard launch` adds to the training process: hooks on its trackers that write each scalar to a journal.

The processes of a launched command load this folder as the package `lossguard_hooks` (see `site/sitecustomize.py`),
from the launcher's installation: their own interpreter need not have Lossguard. So it imports nothing but the standard
library and itself, relatively, and as little as possible before a tracker is imported. It starts no thread and no
connection.
"""

import sys
from pathlib import Path

from . import imports
from .journal import Journal

JOURNAL_VARIABLE = "LOSSGUARD_LAUNCH"
"""The environment variable that names the journal, for all processes of the launched command."""

_journal: Journal | None = None


def install(path: str) -> None:
    """Hook the trackers that this process imports from now on; their scalars go to the journal at `path`."""
    global _journal
    _journal = Journal(Path(path))
    sys.meta_path.insert(0, imports.HookFinder(_journal))


def stand_back() -> None:
    """The script calls `lossguard.init`: it reports itself, and the hooks of this process record nothing."""
    if _journal is not None:
        _journal.leave_to_script()
