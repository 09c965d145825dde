import json
import subprocess
import sys

import pytest

from tests.frameworks import ROOT
from tests.gpu.__main__ import MISSING, NO_DEVICE, num_devices

COMMAND = [sys.executable, "-m", "tests.gpu"]


@pytest.mark.skipif(num_devices() > 0, reason="there is a device")
def test_without_a_device_one_sentence_says_so_and_the_exit_code_is_3() -> None:
    done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (NO_DEVICE, MISSING + "\n", "")


@pytest.mark.system
def test_the_parts_pass_on_the_cpu_and_what_needs_a_gpu_is_said_to_be_skipped() -> None:
    """Without those that only take times: they mean nothing here."""
    parts = ["recipe", "resume", "rollback", "memory", "loss", "one_rank", "nvml"]
    done = subprocess.run([*COMMAND, "--device", "cpu", *parts], cwd=ROOT, capture_output=True, text=True, check=False)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, result["failed"]) == (0, {}), done.stderr
    assert result["passed"].keys() == set(parts) - {"nvml"}
    assert result["skipped"] == {"nvml": "needs a CUDA device"}


@pytest.mark.system
def test_a_part_that_does_not_exist_is_named() -> None:
    done = subprocess.run(
        [*COMMAND, "--device", "cpu", "recipes"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("there is no part 'recipes': choose among recipe, resume")
