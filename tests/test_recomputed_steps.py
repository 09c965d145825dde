"""The recomputed-step check on real training: a process dies and another resumes the run; both deliver their spools."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from lossguard.__main__ import main
from monitor.ingestion.run_state import detection_state
from tests.dashboard.serving import serving
from tests.trainer.small import small_recipe
from trainer.config import CheckpointConfig, ModelConfig, OptimizerConfig, Recipe
from trainer.faults import Fault
from trainer.train import Job, train

pytestmark = pytest.mark.slow(5)

RESTORED, DEATH, STEPS = 100, 109, 112


class Killed(Exception):
    """The process is gone: nothing more is saved or logged."""


def recipe_in(folder: Path) -> Recipe:
    """With dropout: the random numbers must be restored too."""
    return small_recipe(
        folder,
        steps=STEPS,
        evaluate_every=0,
        model=ModelConfig(layers=2, heads=2, width=16, context=16, dropout=0.1),
        optimizer=OptimizerConfig(lr=1e-2, warmup_steps=4, decay_steps=400),
        checkpoint=CheckpointConfig(every=20),
    )


def live(folder: Path, **job: Any) -> None:
    """One process of the run: from its newest checkpoint, if there is one."""
    train(recipe_in(folder), Job(directory=folder / "runs", run_id="r", mode="offline", quiet=True, **job))


@pytest.fixture(scope="module")
def first_life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed at step DEATH; its newest checkpoint is that of step RESTORED."""

    def kill(step: int, batch_index: int, metrics: dict[str, float]) -> None:
        if step == DEATH:
            raise Killed

    folder = tmp_path_factory.mktemp("first")
    with pytest.raises(Killed):
        live(folder, on_step=kill)
    for saving in [each for each in threading.enumerate() if each.name == "lossguard-checkpoint"]:
        saving.join()  # as the end of a process does: the checkpoint of step RESTORED is complete
    return folder


@pytest.fixture
def folder(first_life: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first_life, tmp_path / "life"))


def mismatches(folder: Path, engine: sa.Engine) -> list[Any]:
    """What the collector says about the run after both spools were delivered."""
    with serving(engine) as url:
        assert main(["sync", str(folder / "runs"), "--url", url]) == 0
    with Session(engine) as session:
        run = queries.run_named(session, run_id="r")
        assert run is not None
        incidents = queries.incidents(session, run=run)
        scatter = detection_state.load(session, run).recomputed.scatter
        return [*(each.details for each in incidents if each.kind == "replay_mismatch"), *(x.tolist() for x in scatter)]


def test_a_resumed_run_computes_its_steps_again_exactly(folder: Path, sqlite_engine: sa.Engine) -> None:
    live(folder)
    assert mismatches(folder, sqlite_engine) == [[0.0] * 8]


def test_an_optimizer_state_that_was_lost_shows_after_the_first_update(folder: Path, sqlite_engine: sa.Engine) -> None:
    live(folder, faults=[Fault("lost_optimizer", RESTORED, 1)])
    (incident,) = mismatches(folder, sqlite_engine)
    assert (incident["state"], incident["onset_step"], incident["detected_step"]) == ("open", RESTORED + 1, 107)
    assert "optimizer state" in incident["reasons"][-1]
