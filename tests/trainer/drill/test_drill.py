import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from lossguard import Run
from tests import fork_server
from tests.trainer.command import environment
from tests.trainer.small import small_recipe
from trainer.drill.drill import FAULT_INTERVAL, FIRST_FAULT, KINDS, DrillResult, plan, run_strategy, succeeded, summary
from trainer.drill.fault_results import FaultResult
from trainer.errors import Stopped
from trainer.faults import FAULTS, Fault
from trainer.measurement.evaluation import HeldOutLoss
from trainer.train import Job


def test_every_kind_of_fault_that_hurts_is_injected_in_turn_with_room_for_an_intervention() -> None:
    faults = plan(20)
    harmless = {"lost_optimizer", "mantissa_flip", "moment_mantissa_flip"}
    for_replays = {"growing_weights", "swollen_row", "rare_token"}
    assert {fault.kind for fault in faults} == set(KINDS) == set(FAULTS) - harmless - for_replays
    assert [fault.step for fault in faults[:3]] == [
        FIRST_FAULT,
        FIRST_FAULT + FAULT_INTERVAL,
        FIRST_FAULT + 2 * FAULT_INTERVAL,
    ]


@pytest.mark.slow(10)
def test_a_strategy_is_recorded_step_by_step_and_ends_with_a_held_out_loss(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, evaluate_every=20)
    job = Job(directory=tmp_path, run=Run(id="clean"))
    history, held_out = run_strategy(recipe, job)
    assert [each.step for each in history] == [each.batch_index for each in history] == list(range(20))
    faulty, worse = run_strategy(
        recipe, Job(directory=tmp_path, run=Run(id="f"), faults=[Fault("nan_gradient", 15, 1)])
    )
    assert [each.loss for each in faulty[:16]] == [each.loss for each in history[:16]]
    assert math.isnan(faulty[-1].loss)
    assert held_out is not None
    assert worse is not None
    assert math.isfinite(held_out.mean)
    assert math.isnan(worse.mean)


def drilled(*, hurt: bool, got_past: bool) -> DrillResult:
    result = FaultResult(
        fault="bit_flip",
        step=300,
        hurt=hurt,
        detected_after=1,
        action="rolled back",
        rollbacks=1,
        steps_lost=110,
        batches_skipped=200,
        recurred=False,
        got_past=got_past,
        held_out=math.nan,
        clean_held_out=2.0,
    )
    counts = np.array([100, 100])
    held_out = {
        name: HeldOutLoss(np.array([first, second]) * counts, counts)
        for name, first, second in [("clean", 1.9, 2.1), ("lossguard", 1.92, 2.1), ("nothing", math.nan, math.nan)]
    }
    return DrillResult(seed=1, steps=550, fault_results=[result], held_out=held_out)


def test_a_drill_succeeds_when_the_run_got_past_every_fault_that_hurt() -> None:
    assert succeeded([drilled(hurt=True, got_past=True), drilled(hurt=False, got_past=False)])
    assert not succeeded([drilled(hurt=True, got_past=True), drilled(hurt=True, got_past=False)])


def test_the_summary_is_strict_json_with_its_numbers() -> None:
    result = json.loads(json.dumps(summary([drilled(hurt=True, got_past=True)]), allow_nan=False))
    assert (result["planted"], result["hurt"], result["got_past"], result["succeeded"]) == (1, 1, 1, True)
    (seed,) = result["seeds"]
    assert seed["held_out_loss"] == {"clean": 2.0, "lossguard": pytest.approx(2.01), "nothing": "NaN"}
    assert seed["held_out_loss_se"]["clean"] == pytest.approx(0.1)
    assert seed["held_out_difference_se"] == {"lossguard": pytest.approx(0.01), "nothing": "NaN"}
    assert result["seeds"][0]["faults"][0]["held_out"] == "NaN"


@pytest.mark.slow
def test_a_signal_ends_the_whole_drill_and_not_one_strategy(tmp_path: Path) -> None:
    class Interrupting(Run):
        def log(self, step: int, **metrics: float) -> None:
            if step == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped) as stopped:
        run_strategy(small_recipe(tmp_path), Job(directory=tmp_path, run=Interrupting(id="r")))
    assert stopped.value.by is signal.SIGTERM


@pytest.mark.system
@pytest.mark.slow(10)
def test_a_small_drill_with_its_own_collector_gets_past_its_fault(tmp_path: Path) -> None:
    small = ["--set", "model.layers=1", "--set", "model.context=32"]
    command = ["drill", "--faults", "2", "--no-compare", "--json", *small, "--out", str(tmp_path)]
    done = fork_server.run("trainer", *command, env=environment(), timeout=240)
    result = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (0 if result["succeeded"] else 1), done.stderr
    assert result["planted"] == 2
    (seed,) = result["seeds"]
    assert set(seed["held_out_loss"]) == {"clean", "lossguard"}
    flip = seed["faults"][1]
    assert (flip["fault"], flip["hurt"], flip["action"], flip["got_past"]) == ("bit_flip", True, "rolled back", True)
