"""Trains a checkpoint of a run again, on chosen batches, in a temporary folder."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossguard import Run
from trainer.config import CheckpointConfig, Recipe, recorded_recipe
from trainer.data.windows import Batch
from trainer.errors import UsageError
from trainer.faults import FAULTS, FaultyBatches, parse_fault
from trainer.model import GPT
from trainer.replay.record import SIGNALS, RecordedStep, RunRecord
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


class Rerun:
    """Trains a recorded run again."""

    def __init__(self, record: RunRecord) -> None:
        """Raises UsageError for a run of several processes."""
        config = record.config
        if (ranks := config.get("ranks", 1)) > 1:  # one process adds in another order, with one rank's random numbers
            raise UsageError(f"The run was trained by {ranks} processes: only runs of one process can be replayed.")
        self.record, self.recipe = record, recorded_recipe(config)
        self.faults = [parse_fault(text) for text in config.get("faults", ())]
        """Faults that the run recorded; those in the data occur again, those in the state do not."""
        self.faults_at_steps = bool(config.get("faults_at_steps"))

    def train(
        self, step: int, batches: Sequence[int], is_enough: Callable[[int, RecordedStep], bool] | None = None
    ) -> list[RecordedStep]:
        """Train `step` and the following steps, one per batch, until `is_enough(step, values)`.

        Raises Stopped after a signal, and CheckpointError for a damaged checkpoint.
        """
        steps: list[RecordedStep] = []

        def note(step: int, index: int, metrics: dict[str, float]) -> None:
            numbers = {name: metrics[name] for name in SIGNALS}
            steps.append(RecordedStep(batch=batches[len(steps)], **numbers))
            if len(steps) == len(batches) or (is_enough is not None and is_enough(step, steps[-1])):
                raise _StopReplay

        with suppress(_StopReplay):
            self._run(step, batches, num_steps=sys.maxsize, on_step=note)
        return steps

    def model(self, step: int) -> GPT:
        return self._run(step, (), num_steps=step).components.model

    def batches(self, batches: FaultyBatches) -> FaultyBatches:
        """`batches`, with the faults where the run met them."""
        for step, index in self.record.first_batches.items():
            batches.reach(step, index)
        return batches

    def _run(self, step: int, batches: Sequence[int], *, num_steps: int, **job: Any) -> TrainingResult:
        with tempfile.TemporaryDirectory(prefix="lossguard-replay-") as folder:
            checkpoints = Path(folder) / PROJECT / RUN / "checkpoints"
            checkpoints.mkdir(parents=True)
            (checkpoints / f"step-{step:09d}").symlink_to(self.record.checkpoint(step).resolve())
            settings = Job(
                directory=Path(folder),
                run=Run(id=RUN),
                faults=[fault for fault in self.faults if FAULTS[fault.kind].on_data is not None],
                faults_at_steps=self.faults_at_steps,
                gate="gate" in self.record.config,
                replace_batches=lambda source: ChosenBatches(self.batches(source), batches),
                quiet=True,
                **job,
            )
            return train(recipe_of_replay(self.recipe, num_steps), settings).complete()


def recipe_of_replay(recipe: Recipe, num_steps: int) -> Recipe:
    """The recipe without evaluations, probes and checkpoints, and with the run's learning rates and curriculum."""
    optimizer = replace(recipe.optimizer, decay_steps=recipe.optimizer.decay_steps or recipe.steps)
    data = replace(recipe.data, curriculum_steps=recipe.data.curriculum_steps or recipe.steps)
    checkpoint = CheckpointConfig(every=sys.maxsize)
    quiet: dict[str, Any] = {"project": PROJECT, "evaluate_every": 0, "probe_every": 0}
    return replace(recipe, steps=num_steps, data=data, optimizer=optimizer, checkpoint=checkpoint, **quiet)
