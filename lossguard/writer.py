"""Who writes a run: a folder, and the process that works in it. Collectors give a run's orders to one of them.

Pure: trainer and collector both import it.
"""

import os
import re
import socket
from dataclasses import dataclass

WRITER_HEADER = "Lossguard-Writer"
"""Header of a trainer's requests. An older SDK sends none, and an older collector ignores it."""
_HEADER = re.compile(r"([0-9a-f]{32}) ([0-9A-Za-z._-]{1,63}) ([\x21-\x7e]{1,160})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """A process that writes a run."""

    id: str
    """Of the run's folder: 128 random bits, which only its processes know."""
    session: str
    """Of the process; a process that takes over the folder has a greater one."""
    process: str
    """The process as people know it: pid@host."""

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


def new_writer_id() -> str:
    """A random id for a folder."""
    return os.urandom(16).hex()


def this_process() -> str:
    """This process as pid@host."""
    return f"{os.getpid()}@{re.sub('[^!-~]', '_', socket.gethostname())[:128] or 'unknown'}"
