"""A Hugging Face Trainer on two ranks: bit for bit as on one, whatever happens."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lossguard.hf.small import LENGTH
from tests.ports import free_port

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    command = [sys.executable, *launch, "-m", "tests.ranks.hf_trainer", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_without_an_incident_neither_watching_nor_guarding_changes_anything(found: list[dict[str, Any]]) -> None:
    assert [each["watched"] for each in found] == [True, True]
    assert [each["guarded"] for each in found] == [[True, True]] * 2


def test_the_loss_is_that_of_the_trainer_and_tokens_are_those_of_all_ranks(found: list[dict[str, Any]]) -> None:
    assert [each["losses"] for each in found] == [True, True]
    assert [each["tokens"] for each in found] == [24 * 2 * 2 * LENGTH] * 2  # steps, micro-batches, ranks


def test_all_ranks_roll_back_to_the_training_that_never_used_the_skipped_batches(found: list[dict[str, Any]]) -> None:
    for each in found:
        for executed, segment, same_steps, same_state in each["rolled_back"]:
            assert executed > 24
            assert segment == ["rollback", 5]
            assert same_steps
            assert same_state


def test_a_signal_to_one_rank_stops_all_at_the_same_step_and_they_continue(found: list[dict[str, Any]]) -> None:
    assert {each["stopped_at"] for each in found} <= {8, 9}
    assert found[0]["stopped_at"] == found[1]["stopped_at"]
    assert [each["interrupted"] for each in found] == [True, True]
    assert [each["resumed"] for each in found] == [[True, True]] * 2
