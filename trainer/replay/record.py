"""The record of a run, read from the spools in its folder: the steps up to the end of one segment, and its checkpoints.

A run that went back has trained some steps several times. A record contains one version of each: the steps of one
segment, and those of its ancestors before it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from lossguard import ConfigurationError, SegmentReason, decode_number, read_spools
from lossguard.torch import checkpoints_in
from trainer.errors import UsageError
from trainer.process.checkpoint_place import checkpoint_place

SIGNALS = ("loss", "grad_norm", "log_z")
MASKED = "***"
"""Text that `lossguard.init` records in place of a secret."""
WENT_BACK = (SegmentReason.ROLLBACK, SegmentReason.REWIND)


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """One finished step. Loss and log Z are in nats per token."""

    batch: int
    loss: float
    grad_norm: float
    log_z: float

    @property
    def is_finite(self) -> bool:
        """True if all three signals are finite."""
        return all(math.isfinite(self.value(signal)) for signal in SIGNALS)

    def value(self, signal: str) -> float:
        """The value of one of SIGNALS."""
        number: float = getattr(self, signal)
        return number


@dataclass(kw_only=True, slots=True)
class RecordedSegment:
    """One segment, with its own steps."""

    key: str
    """Key of the segment, as in the collector."""
    fork_step: int
    reason: str
    config: Mapping[str, Any]
    skipped: tuple[int, int] | None
    """The batches [from, to) that were skipped by the rollback which opened the segment."""
    steps: dict[int, RecordedStep] = field(default_factory=dict)

    def add(self, line: Mapping[str, Any]) -> None:
        """Add the step of a spool line, if it has all signals and a batch."""
        metrics = line["metrics"]
        numbers = {name: decode_number(metrics.get(name)) for name in SIGNALS}
        if "batch_index" in metrics and None not in numbers.values():
            self.steps[line["step"]] = RecordedStep(batch=int(metrics["batch_index"]), **numbers)  # type: ignore[arg-type]


@dataclass(kw_only=True, slots=True, frozen=True)
class RunRecord:
    """The steps up to the end of one segment."""

    config: Mapping[str, Any]
    """The configuration of that segment."""
    steps: Mapping[int, RecordedStep]
    """Without gaps."""
    first_batches: Mapping[int, int]
    """Step -> the batch with which the run reached it for the first time."""
    checkpoints: Mapping[int, Mapping[int, Path]]
    """Step -> the checkpoints of its place, of which a folder is downloaded when it is asked for: see `checkpoint`."""
    skipped: tuple[int, int] | None
    """The batches that the rollback after these steps skipped."""

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint of this step."""
        return self.checkpoints[step][step]

    def between(self, first: int, end: int) -> list[RecordedStep]:
        """The recorded steps [first, end)."""
        return [self.steps[step] for step in range(first, end)]


def read_record(
    folder: Path,
    *,
    key: str | None = None,
    step: int,
    checkpoints: str | None = None,
    downloads: Path | None = None,
) -> RunRecord:
    """The record of the segment with this key, or (None) of the first segment with `step`. Raises UsageError.

    `checkpoints`: the folder or URL with the checkpoints of all runs, by default the one that the run names. From a URL
    they are downloaded into `downloads` (by default `folder`) when they are asked for.
    """
    segments = _segments(folder)
    matches = (
        number for number, each in enumerate(segments) if each.key == key or (key is None and step in each.steps)
    )
    last = next(matches, None)
    if last is None or step not in segments[last].steps:
        raise UsageError(
            f"The spools in {folder} do not contain step {step}: the incident cannot be replayed from them."
        )
    steps: dict[int, RecordedStep] = {}
    first_batches: dict[int, int] = {}
    for segment in segments[: last + 1]:
        steps = {each: values for each, values in steps.items() if each < segment.fork_step} | segment.steps
        for each, values in segment.steps.items():
            first_batches.setdefault(each, values.batch)
    steps = _without_gaps(steps, step)
    later = segments[last + 1 :]
    config = segments[last].config
    given: str | None = checkpoints or config.get("checkpoints")
    if given is not None and not checkpoints and MASKED in given:
        raise UsageError(
            f"The run kept its checkpoints at {given}, not wholly recorded: give the URL with --checkpoints."
        )
    place = checkpoint_place(given, folder) or folder / "checkpoints"
    try:
        kept, discarded = (
            checkpoints_in(place, discarded=each, downloads=downloads or folder) for each in (False, True)
        )
    except (ConfigurationError, OSError) as problem:
        raise UsageError(f"The checkpoints cannot be read: {problem}.") from None
    chosen = _choose(kept, discarded, later)
    departure = next((each for each in later if each.reason in WENT_BACK), None)
    return RunRecord(
        config=config,
        steps=steps,
        first_batches=first_batches,
        checkpoints={each: folders for each, folders in chosen.items() if each >= min(steps)},
        skipped=None if departure is None else departure.skipped,
    )


def _without_gaps(steps: Mapping[int, RecordedStep], step: int) -> dict[int, RecordedStep]:
    """The contiguous steps around `step`: a replay cannot cross a gap, which a lost spool leaves."""
    first = last = step
    while first - 1 in steps:
        first -= 1
    while last + 1 in steps:
        last += 1
    return {each: steps[each] for each in range(first, last + 1)}


def _segments(folder: Path) -> list[RecordedSegment]:
    segments: list[RecordedSegment] = []
    for session, lines in groupby(read_spools(folder), key=itemgetter(0)):
        config: Mapping[str, Any] = {}
        segment: RecordedSegment | None = None
        for _, line in lines:
            if "run" in line:
                config = line["run"]["config"]
            elif "segment" in line:
                applied = line.get("applied") or {}
                segment = RecordedSegment(
                    key=f"{session}-{line['segment']}",
                    fork_step=line["fork_step"],
                    reason=line["reason"],
                    config=config,
                    skipped=None if applied.get("skip_from") is None else (applied["skip_from"], applied["skip_to"]),
                )
                segments.append(segment)
            elif "step" in line and "metrics" in line and segment is not None:
                segment.add(line)
    return segments


def _choose(
    kept: Mapping[int, Path], discarded: Mapping[int, Path], later: Sequence[RecordedSegment]
) -> dict[int, Mapping[int, Path]]:
    """Return checkpoints from before later segments and those the next rollback discarded: step -> its place."""
    forks = [each.fork_step for each in later]
    places = {step: kept for step in kept if all(step <= fork for fork in forks)}
    rollbacks = [each for each in later if each.reason in WENT_BACK]
    if len(rollbacks) == 1:  # what is discarded belongs to the last rollback
        before = [each.fork_step for each in later[: later.index(rollbacks[0])]]
        places |= {step: discarded for step in discarded if all(step <= fork for fork in before)}
    return places
