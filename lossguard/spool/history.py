"""The history of a run's earlier sessions, read from their spools."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lossguard.spool.spool import session_of
from lossguard.spool.spool_reader import files_in, read_file
from lossguard.vocabulary.orders import Skip
from lossguard.vocabulary.states import SegmentReason

# The history, because of which no order is executed twice.


@dataclass(slots=True)
class History:
    """The orders, skips, segments and remedies of a run's earlier sessions."""

    num_segments: int = 0
    answered: set[str | int] = field(default_factory=set)
    """Orders that were applied or refused: their keys, or the ids of orders without a key."""
    skips: list[Skip] = field(default_factory=list)
    samples: list[list[Any]] = field(default_factory=list)
    """Each range of skipped micro-batches: its first, the first after it, and the indices of its samples."""
    lr_scale: float | None = None
    """Set by the last applied order that has one."""
    remedies: dict[str, int] = field(default_factory=dict)
    """The step from which an ordered remedy is no longer in effect, by its name."""
    newest_segment_at: float = 0.0
    """Unix seconds, by the trainer's clock."""
    rollback_times: list[float] = field(default_factory=list)
    """Unix seconds at which rollbacks were carried out, by the trainer's clock."""
    segments: list[str] = field(default_factory=list)
    """Keys of the segments, as the collector knows them, since the last rewind."""
    left: set[str] = field(default_factory=set)
    """Keys of those that a rewind has left behind."""
    rewound_to: list[int] = field(default_factory=list)
    """The step to which each rollback and each `resume_from` led, in their order."""
    resume_from: int | None = None
    """The `resume_from` of a guard that the newest session has carried out, or knew to be carried out."""

    @classmethod
    def read(cls, directory: Path) -> "History":
        """The history of the run whose spools are in `directory`. Raises OtherVersion."""
        history = cls()
        for path in files_in(directory, ".spool", ".control"):
            with read_file(path) as reader:
                for line in reader.records("segment", "answer"):
                    history._add(line.record, session_of(path)[0])
        return history

    def begin_segment(self, key: str, reason: str, fork_step: int, applied: Mapping[str, Any]) -> None:
        """A segment was opened: an order that was decided before a rewind is about a state that is gone.

        `applied`: as for `Run.open_segment`.
        """
        is_chosen = reason == SegmentReason.ROLLBACK or "rewound_to" in applied
        if is_chosen:
            self.rewound_to.append(fork_step)
        if is_chosen or reason == SegmentReason.REWIND:
            self.left.update(self.segments)
            self.segments = []
        self.segments.append(key)

    def has_discarded(self, step: int, num_rollbacks: int) -> bool:
        """Return True if one of `rewound_to` lies before `step`, of those that came after the first `num_rollbacks`."""
        return any(rewound_to < step for rewound_to in self.rewound_to[num_rollbacks:])

    def _add(self, record: dict[str, Any], session: str) -> None:
        if record["key"] is not None:  # an order was answered, or carried out by the segment
            self.answered.add(record["key"])
        applied = record.get("applied") or {}
        if applied.get("skip_from") is not None:
            self.skips.append(Skip(applied["skip_from"], applied["skip_to"], applied.get("reason", "")))
        self.samples += applied.get("samples") or ()
        if applied.get("lr_scale") is not None:
            self.lr_scale = applied["lr_scale"]
        self.remedies |= applied.get("remedies") or {}
        if "segment" in record:
            self.newest_segment_at = max(self.newest_segment_at, record["time"])
        if "segment" in record and "repeated" not in record:
            self.num_segments += 1
            if record["segment"] == 0 or "resume_from" in applied:
                self.resume_from = applied.get("resume_from")
            self.begin_segment(f"{session}-{record['segment']}", record["reason"], record["fork_step"], applied)
            if record["reason"] == SegmentReason.ROLLBACK:
                self.rollback_times.append(record["time"])


# Records of all sessions.


def read_spools(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(session, record) of each line of a run's spools, in the order of writing; `directory` is `run.directory`.

    A record has one of the keys "run" (the registration), "segment" (a segment was opened), "metrics" (a step; see
    `decode_number`), "event", "restorable", "answer" (to an order) and "finish". Truncated and damaged lines are left
    out. Of files that were trimmed to the lines that a resumed run needs, the others are missing.
    """
    for path in files_in(directory, ".spool", ".spool.gz", ".control"):
        session, _ = session_of(path)
        with read_file(path) as reader:
            for line in reader.records():
                if "repeated" not in line.record:
                    yield session, line.record
