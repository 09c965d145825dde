"""The verdict of a replay: the cause that its arms show, as JSON and as sentences."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from rich.table import Table
from rich.text import Text

from lossguard import Cause, encode_number
from trainer.conversion import encoded
from trainer.display import wide_console
from trainer.replay.incident import ReplayedIncident
from trainer.replay.record import RecordedStep

MAX_CURVE = 2000
"""Values of a curve that are stored with a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One state, trained on one list of batches."""

    state: str
    """`same` or `earlier`."""
    batches: str
    """`same` or `other`."""
    checkpoint: int
    """Step of the state."""
    reproduced: bool
    worst: float
    """The value of the signal at the worst step; NaN if it is not finite."""
    expected: float
    """At that step."""
    tolerance: float
    steps: Sequence[RecordedStep]

    def to_dict(self) -> dict[str, Any]:
        """Return it as the collector accepts it: with its losses in place of its steps."""
        return {name: value for name, value in encoded(self).items() if name != "steps"} | {"losses": curve(self.steps)}


@dataclass(frozen=True, slots=True)
class Excerpt:
    """One row of a batch."""

    batch: int
    row: int
    loss: float
    """Its mean loss in nats per token."""
    inputs: str
    targets: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayVerdict:
    """The result of a replay."""

    cause: Cause
    sentence: str
    """The cause in words."""
    signal: str
    first: int
    """Step of the checkpoint from which the incident was replayed."""
    last: int
    recorded: Sequence[RecordedStep]
    arms: Sequence[Arm] = ()
    departed_at: int | None = None
    """Step at which the same state with the same batches first differs from the record; None if it never does."""
    repeat_error: float = 0.0
    """Largest loss difference, in nats, when normal steps are repeated."""
    culprits: Sequence[tuple[int, int]] = ()
    """Ranges [from, to) of batches that reproduce the incident."""
    excerpts: Sequence[Excerpt] = ()

    def adding(self, sentence: str) -> "ReplayVerdict":
        return replace(self, sentence=f"{self.sentence} {sentence}")

    def to_dict(self) -> dict[str, Any]:
        """Return it as the collector accepts it."""
        evidence = {
            "signal": self.signal,
            "first_step": self.first,
            "last_step": self.last,
            "recorded": curve(self.recorded),
            "departed_at": self.departed_at,
            "repeat_tolerance": encode_number(self.repeat_error),
            "arms": [arm.to_dict() for arm in self.arms],
        }
        return {
            "cause": self.cause.value,
            "sentence": self.sentence,
            "evidence": evidence,
            "culprits": [{"batch_from": first, "batch_to": end} for first, end in self.culprits],
            "excerpts": [encoded(each) for each in self.excerpts],
            "replayed_at": time.time(),
            "version": metadata.version("lossguard"),
        }


CAUSES: dict[tuple[bool, ...], Cause] = {
    (False, False, False, False): Cause.HARDWARE,
    (False, False): Cause.HARDWARE,
    (True, False, True, False): Cause.DATA,
    (True, True, False, False): Cause.STATE,
    (True, False, False, False): Cause.DATA_X_STATE,
}
"""Cause of the incident, by whether each arm reproduced it.

The arms are the same state with the same batches and with other ones; then, if there is one, an earlier state with
the same batches and with others (the normal run). All other combinations contradict themselves (both the batches and
the state do it, ..) or lack the normal run.
"""


def cause_of(reproduced: Sequence[bool]) -> Cause:
    return CAUSES.get(tuple(reproduced), Cause.UNDETERMINED)


def curve(steps: Sequence[RecordedStep]) -> list[float | str | None]:
    """The losses, as JSON numbers."""
    return [encode_number(step.loss) for step in steps[:MAX_CURVE]]


def describe(cause: Cause, arms: Sequence[Arm], *, state: int, earlier: int | None, departed_at: int | None) -> str:
    """The sentence of a verdict; `state` and `earlier` are the steps of the two checkpoints."""
    same, before = f"the state of step {state}", f"the state of step {earlier}"
    match cause:
        case Cause.HARDWARE:
            text = f"Hardware or another transient cause: {same} with the same batches does not reproduce it"
            differs = f"; the replay differs from the record from step {departed_at} on"
            return f"{text}{'' if departed_at is None else differs}."
        case Cause.DATA:
            return f"The data: the same batches reproduce it from {same} and from {before}; other batches do not."
        case Cause.STATE:
            return (
                f"The state: {same} reproduces it with other batches, too; {before} does not with any. "
                f"Do not roll back to step {state}."
            )
        case Cause.DATA_X_STATE:
            return (
                f"These batches in this state: {same} reproduces it only with these batches, "
                f"and {before} does not even with them."
            )
    if earlier is None:
        return f"Undetermined: {same} reproduces it, and no earlier checkpoint is left for comparison."
    if all(arm.reproduced for arm in arms):
        return "Undetermined: every state reproduces it with any batches. All states are damaged, or it is the recipe."
    reproduced = " and ".join(f"step {arm.checkpoint} with {arm.batches} batches" for arm in arms if arm.reproduced)
    return f"Undetermined: the arms contradict each other; only {reproduced} reproduced it."


# The table in the terminal.

COLUMNS = ("state", "batches", "worst", "expected", "tolerance", "reproduced")


def show_replay(incident: ReplayedIncident, verdict: ReplayVerdict) -> None:
    """The cause, one row per arm, how exact a repetition is, and excerpts of the culprit batches."""
    console = wide_console()
    console.print(Text(f"{incident}: {verdict.cause}", style="bold"))
    console.print(verdict.sentence, markup=False)
    table = Table(title=f"steps {verdict.first} to {verdict.last}, judged by {verdict.signal}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in COLUMNS[2:5] else "left")
    for arm in verdict.arms:
        worst = "not finite" if math.isnan(arm.worst) else f"{arm.worst:.3f}"
        figures = worst, f"{arm.expected:.3f}", f"{arm.tolerance:.3f}"
        table.add_row(f"step {arm.checkpoint}", arm.batches, *figures, "yes" if arm.reproduced else "no")
    if verdict.arms:
        console.print(table)
        exact = "bit for bit" if verdict.repeat_error == 0 else f"to {verdict.repeat_error:.2g} nats"
        at = verdict.departed_at
        divergence = "repeats the record to the end" if at is None else f"differs from the record from step {at} on"
        console.print(f"normal steps repeat {exact}; the same state with the same batches {divergence}")
    for each in verdict.excerpts:
        console.print(f"batch {each.batch}, row {each.row}, loss {each.loss:.2f}:")
        for name, text in (("inputs", each.inputs), ("targets", each.targets)):
            console.print(f"  {name:<7} {text!r}", markup=False)
