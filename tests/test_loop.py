"""The whole loop with real processes: a process that was killed comes back, and every step is stored exactly once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fork_server import WarmProcesses
from tests.loop import Loop, wait_while_it_runs

pytestmark = pytest.mark.slow(5)

ENDLESS = (100_000, "--set", "optimizer.decay_steps=400")
"""Steps and arguments of a trainer that goes on until the test has seen enough."""
NUM_STEPS = 900
"""Steps of a trainer that is still at work when the test has seen the first hundred, also on a busy machine."""
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGINT)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with WarmProcesses(tmp_path / "logs") as processes:
        yield Loop(processes, tmp_path)


def is_verified(loop: Loop) -> bool:
    """Whether the only rollback of the run is."""
    run = loop.ask()
    return run is not None and [one["state"] for one in run["interventions"]] == ["verified"]


def test_a_collector_killed_in_the_middle_loses_nothing(loop: Loop) -> None:
    collector = loop.start_collector()
    trainer = loop.start_trainer(NUM_STEPS)
    wait_while_it_runs(trainer, lambda: loop.newest_step() > 100)
    collector.send_signal(signal.SIGKILL)
    collector.wait()
    assert trainer.poll() is None, "the trainer had ended before the collector was killed"
    wait_while_it_runs(trainer, lambda: "steps stay in the spool" in loop.log("trainer"))
    loop.start_collector()
    assert trainer.wait(200) == 0, loop.log("trainer")
    series = loop.ask("/series?metric=loss&points=5000")
    assert series["first_step"] == list(range(NUM_STEPS))
    assert [one["num_steps"] for one in loop.ask()["segments"]] == [NUM_STEPS]
    assert loop.ask()["state"] == "finished"


def test_a_trainer_killed_in_the_middle_continues_the_same_run(loop: Loop) -> None:
    loop.start_collector()
    trainer = loop.start_trainer(NUM_STEPS)
    wait_while_it_runs(trainer, lambda: loop.newest_step() > 120)
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    assert loop.start_trainer(NUM_STEPS).wait(200) == 0, loop.log("trainer")
    run = loop.ask()
    first, second = run["segments"]
    assert second["reason"] == "resume"
    assert second["parent"] == 0
    assert second["fork_step"] % 25 == 0
    assert second["fork_step"] <= first["last_step"] + 1
    assert first["num_steps"] == first["last_step"] + 1, "a step that was logged before the kill is missing"
    assert loop.ask("/series?metric=loss&points=5000")["first_step"] == list(range(NUM_STEPS))
    assert "replay_mismatch" not in [incident["kind"] for incident in loop.ask("/incidents")]
    assert run["state"] == "finished"


@pytest.mark.system
def test_a_trainer_asked_to_stop_says_interrupted_and_resumes_without_losing_a_step(loop: Loop) -> None:
    loop.start_collector()
    trainer = loop.start_trainer(*ENDLESS)
    wait_while_it_runs(trainer, lambda: loop.newest_step() > 60)
    trainer.send_signal(signal.SIGTERM)
    assert trainer.wait(60) in STOPPED
    assert loop.ask()["state"] == "interrupted"
    num_steps = loop.newest_step() + 100
    assert loop.start_trainer(num_steps, *ENDLESS[1:]).wait(120) == 0, loop.log("trainer")
    first, second = loop.ask()["segments"]
    assert second["fork_step"] == first["last_step"] + 1
    assert first["num_steps"] + second["num_steps"] == num_steps


@pytest.mark.system
def test_a_run_without_a_collector_is_delivered_later(loop: Loop) -> None:
    assert loop.start_trainer(60, "--mode", "offline").wait(120) == 0, loop.log("trainer")
    loop.start_collector()
    (folder,) = {path.parent for path in (loop.folder / "out").rglob("*.spool")}
    sync = [sys.executable, "-m", "lossguard", "sync", str(folder)]
    done = subprocess.run(
        sync, env=os.environ | {"LOSSGUARD_URL": loop.url}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert loop.ask("/series?metric=loss")["first_step"] == list(range(60))
    assert loop.ask()["state"] == "finished"


def test_an_injected_bit_flip_is_rolled_back_and_verified(loop: Loop) -> None:
    """The fault makes the loss NaN or huge at once; after the rollback it does not come back."""
    loop.start_collector()
    trainer = loop.start_trainer(*ENDLESS, "--fault", "bit_flip@260")
    wait_while_it_runs(trainer, lambda: is_verified(loop))
    trainer.send_signal(signal.SIGTERM)
    assert trainer.wait(60) in STOPPED
    run, num_steps = loop.ask(), loop.newest_step() + 1
    (order,) = run["orders"]
    assert order["state"] == "applied"
    assert order["rewound_to"] < 260
    assert [one["state"] for one in run["interventions"]] == ["verified"]
    assert [one["reason"] for one in run["segments"]] == ["start", "rollback"]
    assert loop.ask("/series?metric=loss&points=5000")["first_step"] == list(range(num_steps))
    batches = loop.ask("/series?metric=batch_index&points=5000")["last"]
    skipped = [range(entry["skip_from"], entry["skip_to"]) for entry in run["skip_ledger"]]
    assert not any(index in each for each in skipped for index in batches)
    assert len(set(batches)) == num_steps
