"""The adapters of frameworks that are not installed here, on FAKES that keep to their command lines and folders."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lossguard import Skip
from lossguard.launch.adapters.adapter import (
    has_option,
    is_complete_archive,
    move_aside,
    numbered,
    option,
    skips_in_environment,
    values,
)
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


COMMAND = ["train.py", "--save", "out", "--lr=0.1", "--lr=0.2", "--skip", "1", "2", "--fast", "--skip=3"]


def test_the_value_of_an_option_is_that_of_its_last_place() -> None:
    assert (option(COMMAND, "--save"), option(COMMAND, "--lr"), option(COMMAND, "--load")) == ("out", "0.2", None)
    assert option(["--save"], "--save") is None


def test_an_option_with_or_without_a_value_is_found() -> None:
    assert has_option(COMMAND, "--fast")
    assert has_option(COMMAND, "--lr")
    assert not has_option(COMMAND, "--slow")


def test_the_values_of_an_option_end_with_the_next_one() -> None:
    assert values(COMMAND, "--skip") == ["1", "2", "3"]


def test_only_whole_names_are_checkpoints(tmp_path: Path) -> None:
    for name in ("step_1", "step_2.tmp", "my_step_3"):
        (tmp_path / name).touch()
    assert numbered(tmp_path, r"step_(\d+)") == {1: tmp_path / "step_1"}
    assert numbered(tmp_path / "none", r"step_(\d+)") == {}


def test_what_is_moved_aside_twice_keeps_both(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for _ in range(2):
        folder.mkdir(exist_ok=True)
        (folder / "step_1").touch()
        move_aside(folder / "step_1", folder)
    assert sorted(path.name for path in (tmp_path / "out.discarded").iterdir()) == ["step_1", "step_1-2"]


@pytest.mark.parametrize("kept", [1.0, 0.99, 0.5, 0.0])
def test_a_file_of_torch_save_that_was_cut_off_is_recognised(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(1000)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert is_complete_archive(path) == (kept == 1.0)
