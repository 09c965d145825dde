"""Accelerate on several ranks: the guarded loop of `tests.lossguard.accelerated` against the plain one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ranks.launch import TORCHRUN

pytestmark = pytest.mark.system
SHORT: dict[str, Any] = {"steps": 20, "rows": 90}
SEEDABLE = {"use_seedable_sampler": True}
ARMS: dict[str, dict[str, Any]] = {
    "without an incident": {},
    "rolled back": {"skips": [[7, 12]], "loader": SEEDABLE},
    "dispatched": {"skips": [[7, 12]], "loader": SEEDABLE | {"dispatch_batches": True}},
    "split": {"skips": [[7, 12]], "loader": SEEDABLE | {"split_batches": True}, "accumulate": 3},
    "save_state": {"skips": [[7, 12]], "loader": SEEDABLE, "store": "accelerate"},
}
LAUNCHERS = {
    "torchrun": [*TORCHRUN, "--nproc-per-node=2"],
    "accelerate launch": [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"),
        *("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"),
    ],
}


def launch(launcher: list[str], folder: Path, arms: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """By rank and arm."""
    command = [*launcher, "-m", "tests.lossguard.accelerated", str(folder), *map(json.dumps, arms)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_guarded_run_is_the_plain_one_without_the_skipped_batches_on_every_rank(
    launcher: str, tmp_path: Path
) -> None:
    names = list(ARMS) if launcher == "torchrun" else ["rolled back"]
    arms = [SHORT | ARMS[name] for name in names]
    results = launch(LAUNCHERS[launcher], tmp_path, [each for arm in arms for each in (arm, arm | {"plain": True})])
    for rank, found in enumerate(results):
        for name, guarded, plain in zip(names, found[::2], found[1::2], strict=True):
            for key in ("seen", "states", "rng"):
                assert guarded[key] == plain[key], (rank, name, key)
            assert guarded["executed"] - len(plain["seen"]) == 11 * guarded["orders"], name
