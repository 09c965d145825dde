"""What a replay found, and how that is told."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from lossguard.protocol import encode_number
from lossguard.states import Cause
from trainer.replay.excerpts import Excerpt
from trainer.replay.record import Row

MAX_CURVE = 2000
"""Values of a curve that are kept with a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One state trained on one list of batches."""

    state: str
    batches: str
    checkpoint: int
    reproduced: bool
    worst: float
    expected: float
    tolerance: float
    rows: Sequence[Row]

    def to_dict(self) -> dict[str, Any]:
        numbers = {name: encode_number(getattr(self, name)) for name in ("worst", "expected", "tolerance")}
        facts = {name: getattr(self, name) for name in ("state", "batches", "checkpoint", "reproduced")}
        return facts | numbers | {"losses": curve(self.rows)}


@dataclass(slots=True, kw_only=True)
class Finding:
    """What a replay found."""

    cause: Cause
    sentence: str
    signal: str
    first: int
    """Step of the checkpoint that the trouble was replayed from."""
    last: int
    recorded: Sequence[Row]
    arms: Sequence[Arm]
    departed_at: int | None = None
    repeat: float = 0.0
    culprits: list[tuple[int, int]] = field(default_factory=list)
    excerpts: list[Excerpt] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As the collector takes it."""
        evidence = {
            "signal": self.signal,
            "first_step": self.first,
            "last_step": self.last,
            "recorded": curve(self.recorded),
            "departed_at": self.departed_at,
            "repeat_tolerance": encode_number(self.repeat),
            "arms": [arm.to_dict() for arm in self.arms],
        }
        return {
            "cause": self.cause.value,
            "sentence": self.sentence,
            "evidence": evidence,
            "culprits": [{"batch_from": first, "batch_to": end} for first, end in self.culprits],
            "excerpts": [each.to_dict() for each in self.excerpts],
            "replayed_at": time.time(),
            "version": metadata.version("lossguard"),
        }


def curve(rows: Sequence[Row]) -> list[float | str | None]:
    return [encode_number(row.loss) for row in rows[:MAX_CURVE]]


def numbered(first: int, end: int) -> str:
    return f"batch {first}" if end == first + 1 else f"batches {first} to {end - 1}"


def sentence(finding: Finding, earlier: int | None) -> str:
    """What was found, for a person."""
    same, before = f"the state of step {finding.first}", f"that of step {earlier}"
    match finding.cause:
        case Cause.HARDWARE:
            left = f"; the replay leaves the record at step {finding.departed_at}"
            told = f"Hardware, or something else that passed: {same} with the same batches does not do it again"
            return f"{told}{'' if finding.departed_at is None else left}."
        case Cause.DATA:
            return f"The data: the same batches do it from {same} and from {before}, other batches from neither."
        case Cause.STATE:
            return f"The state: {same} does it with other batches too, {before} with none. Do not go back to the first."
        case Cause.DATA_X_STATE:
            return f"These batches in this state: {same} does it with no others, and {before} not even with these."
    if earlier is None:
        return f"Undetermined: {same} does it again, and no earlier checkpoint is left to compare it with."
    if all(arm.reproduced for arm in finding.arms):
        return "Undetermined: every state does it with any batches. Either all are damaged, or it is the recipe."
    does = " and ".join(f"step {arm.checkpoint} with {arm.batches} batches" for arm in finding.arms if arm.reproduced)
    return f"Undetermined: the outcomes contradict each other, it is done by {does} alone."


def too_small(excess: float, tolerance: float) -> str:
    return (
        f"Undetermined: the recorded trouble is too small to tell. It is {excess:.3g} from what was expected, "
        f"and clean steps lie up to {tolerance:.3g} from it."
    )
