"""Which process writes checkpoints at a URL: the last one to begin, because an object store has no locks.

`<url>/writer.json` names it. A process that is no longer named there stops saving.
"""

import json
import os
import time

from lossguard.errors import CheckpointError
from lossguard.remote_files import RemoteFiles
from lossguard.writer import this_process

WRITER = "writer.json"


class RemoteWriter:
    """This process, as one that writes at the URL of `files`."""

    def __init__(self, files: RemoteFiles) -> None:
        self._files = files
        self._id = os.urandom(8).hex()
        self.has_begun = False

    def begin(self) -> None:
        """Take the place of whichever process wrote before. Raises OSError."""
        facts = {"id": self._id, "process": this_process(), "since": time.time()}
        self._files.write(WRITER, json.dumps(facts).encode())
        self.has_begun = True

    def check(self) -> None:
        """Raise CheckpointError if another process has begun since, and OSError if nobody can tell."""
        try:
            named = json.loads(self._files.read(WRITER))
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(named["since"])))
            owner, process = named["id"], named["process"]
        except (ValueError, LookupError, TypeError, OverflowError) as problem:
            raise OSError(f"{self._files}/{WRITER} cannot be understood: {problem}") from problem
        if owner != self._id:
            raise CheckpointError(
                f"process {process} saves its checkpoints at {self._files} since {since}, so this one no longer does: "
                "stop one of them, or keep the checkpoints of each at a URL of its own"
            )
