"""What a run recorded of itself, read back from the spools in its folder: the steps of one line, and its checkpoints.

A run that went back has several passes over the same steps. A record is of one of them: the line that led to the end of
one segment, with the steps that it took from its ancestors.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lossguard.protocol import decode_number
from lossguard.spooling.spool import spools_in
from lossguard.states import SegmentReason
from trainer.errors import UserMistake

SIGNALS = ("loss", "grad_norm", "log_z")
WENT_BACK = (SegmentReason.ROLLBACK, SegmentReason.REWIND)


@dataclass(frozen=True, slots=True)
class Row:
    """One finished step. Losses and log Z in nats per token."""

    batch: int
    loss: float
    grad_norm: float
    log_z: float

    @property
    def finite(self) -> bool:
        """Whether all three are."""
        return all(math.isfinite(self.value(signal)) for signal in SIGNALS)

    def value(self, signal: str) -> float:
        number: float = getattr(self, signal)
        return number


@dataclass(kw_only=True, slots=True)
class Segment:
    key: str
    """As the collector knows it."""
    fork_step: int
    reason: str
    config: Mapping[str, Any]
    skipped: tuple[int, int] | None
    """The batches [from, to) that the rollback which opened it left out."""
    rows: dict[int, Row] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Record:
    """The line up to the end of one segment."""

    folder: Path
    config: Mapping[str, Any]
    """As it was in force then."""
    rows: Mapping[int, Row]
    """Step -> what was reported."""
    first_batches: Mapping[int, int]
    """Step -> the batch with which the run reached it for the first time."""
    checkpoints: Mapping[int, Path]
    """Step -> folder of a checkpoint of this line."""
    skipped: tuple[int, int] | None
    """The batches that the rollback which ended the line left out."""


def read_record(folder: Path, *, key: str | None = None, step: int) -> Record:
    """The line of the segment with this key, or (None) of the first one that has `step`. Raises UserMistake."""
    segments = list(_segments(spools_in(folder)))
    last = next((n for n, each in enumerate(segments) if each.key == key or (key is None and step in each.rows)), None)
    if last is None or step not in segments[last].rows:
        raise UserMistake(f"The spools in {folder} do not hold step {step}: the trouble cannot be replayed from them.")
    rows: dict[int, Row] = {}
    first_batches: dict[int, int] = {}
    for segment in segments[: last + 1]:
        rows = {each: row for each, row in rows.items() if each < segment.fork_step} | segment.rows
        for each, row in segment.rows.items():
            first_batches.setdefault(each, row.batch)
    rows = _unbroken(rows, step)
    first = min(rows)
    checkpoints = _checkpoints(folder / "checkpoints", segments[last + 1 :])
    left = _left(segments[last + 1 :])
    return Record(
        folder=folder,
        config=segments[last].config,
        rows=rows,
        first_batches=first_batches,
        checkpoints={each: path for each, path in checkpoints.items() if each >= first},
        skipped=None if left is None else left.skipped,
    )


def _unbroken(rows: Mapping[int, Row], step: int) -> dict[int, Row]:
    """The rows around `step` without a gap: what was recorded by another spool that is gone cannot be replayed."""
    first = last = step
    while first - 1 in rows:
        first -= 1
    while last + 1 in rows:
        last += 1
    return {each: rows[each] for each in range(first, last + 1)}


def _segments(spools: Iterable[Path]) -> Iterator[Segment]:
    for spool in spools:
        config: Mapping[str, Any] = {}
        segment: Segment | None = None
        for line in _lines(spool):
            if "run" in line:
                config = line["run"]["config"]
            elif "segment" in line:
                if segment is not None:
                    yield segment
                segment = _opened(f"{spool.stem}-{line['segment']}", line, config)
            elif "step" in line and "metrics" in line and segment is not None:
                _take(segment, line)
        if segment is not None:
            yield segment


def _lines(spool: Path) -> Iterator[dict[str, Any]]:
    with spool.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):  # a torn one is none
                with suppress(ValueError):  # damaged by the disk: a gap, from which on the steps can be used again
                    yield json.loads(line)


def _opened(key: str, line: Mapping[str, Any], config: Mapping[str, Any]) -> Segment:
    applied = line.get("applied") or {}
    skipped = None if applied.get("skip_from") is None else (applied["skip_from"], applied["skip_to"])
    return Segment(key=key, fork_step=line["fork_step"], reason=line["reason"], config=config, skipped=skipped)


def _take(segment: Segment, line: Mapping[str, Any]) -> None:
    metrics = line["metrics"]
    numbers = {name: decode_number(metrics.get(name)) for name in SIGNALS}
    if "batch_index" in metrics and None not in numbers.values():
        segment.rows[line["step"]] = Row(batch=int(metrics["batch_index"]), **numbers)  # type: ignore[arg-type]


def _left(later: Sequence[Segment]) -> Segment | None:
    """The segment with which the run left the line for another one."""
    return next((each for each in later if each.reason in WENT_BACK), None)


def _checkpoints(folder: Path, later: Sequence[Segment]) -> dict[int, Path]:
    """Those up to where the later segments forked off, and what the rollback that left the line has set aside."""
    forks = [each.fork_step for each in later]
    found = {step: path for step, path in _saved(folder) if all(step <= fork for fork in forks)}
    rollbacks = [each for each in later if each.reason in WENT_BACK]
    if len(rollbacks) == 1:  # what is set aside is of the last rollback
        before = [each.fork_step for each in later[: later.index(rollbacks[0])]]
        found |= {step: path for step, path in _saved(folder / "discarded") if all(step <= fork for fork in before)}
    return found


def _saved(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in sorted(folder.glob("step-*")):
        if (path / "manifest.json").is_file() and path.name.removeprefix("step-").isdecimal():
            yield int(path.name.removeprefix("step-")), path
