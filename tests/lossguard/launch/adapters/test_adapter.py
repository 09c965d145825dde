"""The adapters of frameworks that are not installed here, on FAKES that keep to their command lines and folders."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from lossguard import Skip
from lossguard.launch.adapters.adapter import skips_in_environment
from tests.lossguard.launch.launching import SECONDS, Launching
from tests.lossguard.launch.resuming import plain, trained
from tests.waiting import wait_for

FAKES = str(Path(__file__).with_name("fakes.py"))
OPTIONS = ("--run-id", "r", "--project", "p", "--restart-backoff", "0.05", "--restart-with")


def rolled_back(launching: Launching, name: str, *arguments: str, **order: Any) -> str:
    """Launch the fake of a framework, order a rollback at step 12, and wait for the end. Returns what was printed."""
    environment = {"NANOCHAT_BASE_DIR": str(launching.folder), "WAIT_AT": "14"}
    process = launching.start(sys.executable, FAKES, name, *arguments, options=(*OPTIONS, name), **environment)
    launching.wait_for_step(12)
    launching.collector.order(**{"id": 1, "key": "k1", "kind": "rollback", **order})
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return err


@pytest.mark.slow
@pytest.mark.parametrize("handler", [(), ("--exit-signal-handler",)], ids=["plain", "saves-on-sigterm"])
def test_megatron_is_rolled_back_and_skips_iterations(launching: Launching, handler: tuple[str, ...]) -> None:
    arguments = ("--save", "ckpt", "--save-interval", "5", "--train-iters", "60", *handler)
    rolled_back(launching, "megatron", *arguments, rewind_to=11, skip_from=10, skip_to=14)
    assert trained(launching.folder) == [*range(10), *range(14, 60)]
    assert (launching.folder / "ckpt" / "latest_checkpointed_iteration.txt").read_text() == "60"
    assert [each["fork_step"] for each in launching.collector.segments] == [1, 11]
    assert launching.metric("batch_index", 1) == {step: step - 1 for step in range(15, 61)}


@pytest.mark.slow
def test_torchtitan_is_rewound_and_started_again_after_an_abort(launching: Launching) -> None:
    arguments = ("--dump_folder", "out", "--training.steps", "60", "--checkpoint.interval", "5")
    err = rolled_back(launching, "torchtitan", *arguments, rewind_to=6)
    assert trained(launching.folder) == plain(60)
    assert "the adapter torchtitan cannot leave batches out: the run is only rewound" in err
    forks = [(each["reason"], each["fork_step"]) for each in launching.collector.segments]
    assert ("rollback", 6) in forks
    assert ("resume", 31) in forks


@pytest.mark.slow
def test_nanochat_is_rewound(launching: Launching) -> None:
    rolled_back(launching, "nanochat", "--num-iterations", "60", "--save-every", "5", rewind_to=9)
    assert trained(launching.folder) == plain(60)
    assert [each["fork_step"] for each in launching.collector.segments] == [0, 5]


@pytest.mark.slow
def test_a_folder_of_another_program_ends_with_one_sentence_only_once_something_depends_on_it(
    launching: Launching,
) -> None:
    """A new run trains; it just cannot be rolled back."""
    other = launching.folder / "ckpt" / "step-1"
    other.mkdir(parents=True)
    options = (*OPTIONS, "megatron", "--checkpoints", str(launching.folder / "ckpt"))
    arguments = ("--save", "elsewhere", "--save-interval", "500", "--train-iters", "20")
    process = launching.start(sys.executable, FAKES, "megatron", *arguments, options=options)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert err.count("there is nothing to roll back to: ") == 1
    assert "ckpt holds no checkpoints of Megatron-LM" in err
    wait_for(lambda: launching.collector.finished, seconds=SECONDS, what="the end of the run")


def test_the_skips_are_in_the_environment_and_in_a_file_with_their_reasons(tmp_path: Path) -> None:
    file = tmp_path / "skips.json"
    environment = skips_in_environment([Skip(3, 5, "spike"), Skip(9, 11)], file)
    assert environment == {"LOSSGUARD_SKIPS": "[[3, 5], [9, 11]]", "LOSSGUARD_SKIPS_FILE": str(file)}
    assert json.loads(file.read_text())[0] == {"skip_from": 3, "skip_to": 5, "reason": "spike"}
    assert os.listdir(tmp_path) == ["skips.json"]
