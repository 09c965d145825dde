"""The byte ranges of a run's spools that were not delivered and never will be; the bytes stay where they are.

<run folder>/damaged.jsonl    one line for each damaged range, and for each segment that had to be opened without
                              the line that announced it
<run folder>/rejected.jsonl   the lines that the collector rejected
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lossguard.spool.folders import open_private
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.wording import plural

DAMAGED = "damaged.jsonl"
REJECTED = "rejected.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedRange:
    """The bytes [begin, end) of a spool."""

    spool: str
    """Name of its file."""
    begin: int
    end: int
    problem: str = field(compare=False)
    opened: dict[str, Any] | None = field(default=None, compare=False)
    """Segment line that stands for a damaged one, if the steps after the range need a segment of their own."""

    def __str__(self) -> str:
        return f"bytes {self.begin} to {self.end} of {self.spool} ({self.problem})"


class SetAside:
    """The two files of the folder of a run. A file that cannot be written is reported once."""

    def __init__(self, directory: Path, log_once: LogOnce | None = None) -> None:
        self._log_once = log_once or LogOnce()
        self.damaged_path = directory / DAMAGED
        self.rejected_path = directory / REJECTED
        self._damaged = _read(self.damaged_path)

    @property
    def damaged(self) -> list[DamagedRange]:
        """Every damaged range that is known, without those that only opened a segment."""
        return [each for each in self._damaged if each.opened is None]

    def of(self, spool: Path) -> list[DamagedRange]:
        """The entries of one spool, in the order of writing."""
        return [each for each in self._damaged if each.spool == spool.name]

    def add(self, damaged: DamagedRange) -> None:
        """Note a range, at least in this process."""
        if damaged not in self._damaged:
            self._damaged.append(damaged)
            self._append(self.damaged_path, json.dumps(asdict(damaged)).encode() + b"\n")

    def reject(self, line: bytes) -> None:
        """Keep a line that the collector rejected."""
        self._append(self.rejected_path, line)

    def _append(self, path: Path, line: bytes) -> None:
        try:
            with open(path, "ab", opener=open_private) as file:
                file.write(line)
        except OSError as problem:
            self._log_once.warn_once(f"set aside {path}", f"{path} cannot be written ({problem.strerror})")

    def num_rejected(self) -> int:
        """Lines that the collector rejected."""
        try:
            with self.rejected_path.open("rb") as file:
                return sum(1 for _ in file)
        except OSError:
            return 0

    def describe(self) -> str:
        """Describe what was set aside; empty if nothing was."""
        parts = []
        if damaged := self.damaged:
            num_bytes = sum(each.end - each.begin for each in damaged)
            first = "; ".join(map(str, damaged[:3])) + ("; .." if len(damaged) > 3 else "")
            where = f"{plural(len(damaged), 'place')} ({first}; listed in {self.damaged_path})"
            parts.append(f"{plural(num_bytes, 'damaged byte')} in {where}")
        if num_rejected := self.num_rejected():
            parts.append(f"{plural(num_rejected, 'line')} that the collector rejected (kept in {self.rejected_path})")
        return " and ".join(parts)


def _read(path: Path) -> list[DamagedRange]:
    """The entries of `path`; what is damaged itself is left out."""
    found = []
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, TypeError, RecursionError):
                found.append(DamagedRange(**json.loads(line)))
    return found
