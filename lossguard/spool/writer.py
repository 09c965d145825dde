"""The writer of a run: a folder, and the process that has locked it.

Collectors give the orders of a run to one writer. The collector imports this module, too.
"""

import hashlib
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

WRITER_HEADER = "Lossguard-Writer"
"""Header of a trainer's requests."""
DELIVERS = "sync:"
"""Before the name of a process that only delivers."""
_HEADER = re.compile(r"([0-9a-f]{32}) ([0-9A-Za-z._-]{1,63}) ([\x21-\x7e]{1,160})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """A process that writes a run."""

    id: str
    """Id of the run's folder: 128 random bits, which only its processes know."""
    session: str
    """Session of the process; a process that takes over the folder has a greater one."""
    process: str
    """The process as people know it: pid@host."""

    @property
    def digest(self) -> str:
        """Digest of the id: it names the folder, and lets nobody act for it."""
        return hashlib.sha256(self.id.encode()).hexdigest()[:32]

    @property
    def only_delivers(self) -> bool:
        """True if it sends what an ended process has left: it takes no run from another folder."""
        return self.process.startswith(DELIVERS)

    def to_header(self) -> str:
        """The value of the header."""
        return f"{self.id} {self.session} {self.process}"

    @classmethod
    def from_header(cls, text: str) -> "Writer":
        """Undo `to_header`. Raises ValueError."""
        match = _HEADER.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r:.200} must be 32 hexadecimal digits, a session and pid@host, separated by blanks"
            )
        return cls(id=match[1], session=match[2], process=match[3])


def this_process() -> str:
    """This process as pid@host."""
    return f"{os.getpid()}@{re.sub('[^!-~]', '_', socket.gethostname())[:128] or 'unknown'}"


def process_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, from the state on; none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


# The identity of a folder: a random id in the file `writer`. Whoever has locked the folder is that writer.

WRITER_FILE = "writer"
_ID = re.compile("[0-9a-f]{32}")


def writer_of(directory: Path, session: str) -> Writer:
    """This process as the writer of a run's folder, which it has locked; a new folder gets an id."""
    if (known := known_writer(directory, session)) is not None:
        return known
    id = os.urandom(16).hex()
    partial = directory / f"{WRITER_FILE}.partial"
    try:
        partial.touch(mode=0o600)
        partial.write_text(f"{id}\n")
        partial.replace(directory / WRITER_FILE)
    except OSError:  # then a restart counts as another folder: it waits for the lease to run out
        partial.unlink(missing_ok=True)
    return Writer(id=id, session=session, process=this_process())


def known_writer(directory: Path, session: str) -> Writer | None:
    """Return this process as the writer without writing anything; None for a folder without an id."""
    try:
        text = (directory / WRITER_FILE).read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return Writer(id=text, session=session, process=this_process()) if _ID.fullmatch(text) else None
