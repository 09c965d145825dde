"""Trains again from a checkpoint of a run, on batches of one's choice, in a folder of its own beside the run."""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lossguard import Run
from trainer.config import CheckpointConfig, Recipe
from trainer.data.batches import Batch
from trainer.errors import Stopped
from trainer.faults import FAULTS, Fault, FaultyBatches
from trainer.model import GPT
from trainer.replay.record import Row
from trainer.train import Job, Outcome, train

PROJECT, RUN = "replay", "replay"


class _Enough(Exception):
    """The replay has seen what it wanted to."""


class Chosen:
    """Batches in the order in which they are wanted, whatever index the guard asks for."""

    def __init__(self, batches: FaultyBatches, wanted: Sequence[int]) -> None:
        self._batches = batches
        self._wanted = iter(wanted)

    def __getitem__(self, index: int) -> Batch:
        return self._batches[next(self._wanted)]


@dataclass(frozen=True, slots=True)
class Rerun:
    """How a run is trained again."""

    recipe: Recipe
    faults: Sequence[Fault]
    """As the run recorded them; those in the data are met again, those in the state struck once and are gone."""
    faults_at_steps: bool
    first_batches: Mapping[int, int]
    """Step -> the batch with which the run first reached it: places the faults when `faults_at_steps`."""

    def train(
        self, step: int, checkpoint: Path, wanted: Sequence[int], enough: Callable[[int, Row], bool] | None = None
    ) -> list[Row]:
        """The steps from `step` on, one a batch of `wanted`, until `enough(step, row)`. Raises Stopped by a signal,
        and CheckpointError for a checkpoint that is damaged."""
        rows: list[Row] = []

        def note(step: int, index: int, metrics: dict[str, float]) -> None:
            numbers = {name: metrics[name] for name in ("loss", "grad_norm", "log_z")}
            rows.append(Row(batch=wanted[len(rows)], **numbers))
            if len(rows) == len(wanted) or (enough is not None and enough(step, rows[-1])):
                raise _Enough

        self._run(step, checkpoint, wanted, steps=sys.maxsize, on_step=note)
        return rows

    def model(self, step: int, checkpoint: Path) -> GPT:
        """The model as the checkpoint has it."""
        outcome = self._run(step, checkpoint, (), steps=step)
        assert outcome is not None
        return outcome.model

    def batches(self, batches: FaultyBatches) -> FaultyBatches:
        """The data as the run met it."""
        for step, index in self.first_batches.items():
            batches.reach(step, index)
        return batches

    def _run(self, step: int, checkpoint: Path, wanted: Sequence[int], *, steps: int, **job: Any) -> Outcome | None:
        with tempfile.TemporaryDirectory(prefix="lossguard-replay-") as place:
            checkpoints = Path(place) / PROJECT / RUN / "checkpoints"
            checkpoints.mkdir(parents=True)
            (checkpoints / f"step-{step:09d}").symlink_to(checkpoint.resolve())
            outcome = None
            try:
                outcome = train(
                    self._recipe(steps),
                    Job(
                        directory=Path(place),
                        run=Run(id=RUN),
                        faults=[fault for fault in self.faults if FAULTS[fault.kind].on_data is not None],
                        faults_at_steps=self.faults_at_steps,
                        instead=lambda batches: Chosen(self.batches(batches), wanted),
                        quiet=True,
                        **job,
                    ),
                )
            except _Enough:
                return None
        if outcome.interrupted_by is not None:
            raise Stopped(outcome.interrupted_by)
        return outcome

    def _recipe(self, steps: int) -> Recipe:
        """Without end, so that no checkpoint is written at it; the schedule still ends where the run's does."""
        optimizer = replace(self.recipe.optimizer, decay_steps=self.recipe.optimizer.decay_steps or self.recipe.steps)
        checkpoint = CheckpointConfig(every=sys.maxsize)
        quiet: dict[str, Any] = {"project": PROJECT, "evaluate_every": 0, "probe_every": 0}
        return replace(self.recipe, steps=steps, optimizer=optimizer, checkpoint=checkpoint, **quiet)
