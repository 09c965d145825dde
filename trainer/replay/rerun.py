"""Trains a checkpoint of a run again, on chosen batches, in a temporary folder."""

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
from trainer.replay.record import RecordedStep
from trainer.train import Job, TrainingResult, train

PROJECT, RUN = "replay", "replay"


class _StopReplay(Exception):
    """The replay has seen enough steps."""


class ChosenBatches:
    """A fixed list of batches, one per request, whatever index the guard asks for."""

    def __init__(self, batches: FaultyBatches, numbers: Sequence[int]) -> None:
        self._batches = batches
        self._numbers = iter(numbers)

    def __getitem__(self, index: int) -> Batch:
        return self._batches[next(self._numbers)]


@dataclass(frozen=True, slots=True)
class Rerun:
    """The settings of training a run again."""

    recipe: Recipe
    faults: Sequence[Fault]
    """Faults that the run recorded; those in the data occur again, those in the state do not."""
    faults_at_steps: bool
    first_batches: Mapping[int, int]
    """Step -> the batch with which the run first reached it; places the faults if `faults_at_steps`."""

    def train(
        self,
        step: int,
        checkpoint: Path,
        batches: Sequence[int],
        is_enough: Callable[[int, RecordedStep], bool] | None = None,
    ) -> list[RecordedStep]:
        """Train `step` and the following steps, one per batch, until `is_enough(step, values)`.

        Raises Stopped after a signal, and CheckpointError for a damaged checkpoint.
        """
        steps: list[RecordedStep] = []

        def note(step: int, index: int, metrics: dict[str, float]) -> None:
            numbers = {name: metrics[name] for name in ("loss", "grad_norm", "log_z")}
            steps.append(RecordedStep(batch=batches[len(steps)], **numbers))
            if len(steps) == len(batches) or (is_enough is not None and is_enough(step, steps[-1])):
                raise _StopReplay

        self._run(step, checkpoint, batches, num_steps=sys.maxsize, on_step=note)
        return steps

    def model(self, step: int, checkpoint: Path) -> GPT:
        """The model of the checkpoint."""
        outcome = self._run(step, checkpoint, (), num_steps=step)
        assert outcome is not None
        return outcome.model

    def batches(self, batches: FaultyBatches) -> FaultyBatches:
        """`batches`, with the faults where the run met them."""
        for step, index in self.first_batches.items():
            batches.reach(step, index)
        return batches

    def _run(
        self, step: int, checkpoint: Path, batches: Sequence[int], *, num_steps: int, **job: Any
    ) -> TrainingResult | None:
        with tempfile.TemporaryDirectory(prefix="lossguard-replay-") as folder:
            checkpoints = Path(folder) / PROJECT / RUN / "checkpoints"
            checkpoints.mkdir(parents=True)
            (checkpoints / f"step-{step:09d}").symlink_to(checkpoint.resolve())
            outcome = None
            try:
                outcome = train(
                    self._recipe(num_steps),
                    Job(
                        directory=Path(folder),
                        run=Run(id=RUN),
                        faults=[fault for fault in self.faults if FAULTS[fault.kind].on_data is not None],
                        faults_at_steps=self.faults_at_steps,
                        replace_batches=lambda source: ChosenBatches(self.batches(source), batches),
                        quiet=True,
                        **job,
                    ),
                )
            except _StopReplay:
                return None
        if outcome.interrupted_by is not None:
            raise Stopped(outcome.interrupted_by)
        return outcome

    def _recipe(self, num_steps: int) -> Recipe:
        """The recipe without evaluations, probes and checkpoints, and with the run's learning rates and curriculum."""
        optimizer = replace(self.recipe.optimizer, decay_steps=self.recipe.optimizer.decay_steps or self.recipe.steps)
        checkpoint = CheckpointConfig(every=sys.maxsize)
        data = replace(self.recipe.data, curriculum_steps=self.recipe.data.curriculum_steps or self.recipe.steps)
        quiet: dict[str, Any] = {"project": PROJECT, "evaluate_every": 0, "probe_every": 0}
        return replace(self.recipe, steps=num_steps, data=data, optimizer=optimizer, checkpoint=checkpoint, **quiet)
