"""Runs on one CUDA device what the other tests run on the CPU. The last line is one JSON object with the figures.

    python -m tests.gpu                          the command of `make test-gpu`: in an environment of its own
    python -m tests.gpu --device cuda            in this environment
    python -m tests.gpu --device cpu [PART...]   the parts that mean something without a GPU, smaller

Exit codes: 0 if every part that ran has passed; 1 if one has failed; 3 if there is no CUDA device.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.frameworks import ROOT, install

PASSED, FAILED, NO_DEVICE = 0, 1, 3
REQUIREMENTS = ("lossguard[hf]", "lossguard[hardware]", "lossguard[db]")
MISSING = "there is no CUDA device on this machine, so nothing was run: use one with an NVIDIA GPU and its driver"


def num_devices() -> int:
    """Number of CUDA devices that the driver shows."""
    count = ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def run(device: str, chosen: list[str]) -> dict[str, Any]:
    """Run the parts, each in a folder of its own: what passed, with its figures, what was skipped and what failed."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats bit for bit
    os.environ["LOSSGUARD_MODE"] = "offline"
    import torch

    from tests.gpu.parts import ONLY_ON_CUDA, PARTS

    if unknown := set(chosen) - set(PARTS):
        raise SystemExit(f"there is no part {unknown.pop()!r}: choose among {', '.join(PARTS)}")
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    result: dict[str, Any] = {"device": name, "torch": torch.__version__, "passed": {}, "skipped": {}, "failed": {}}
    for part in chosen or PARTS:
        if device != "cuda" and part in ONLY_ON_CUDA:
            result["skipped"][part] = "needs a CUDA device"
            continue
        began = time.monotonic()
        print(f"{part} ..", file=sys.stderr, flush=True)
        try:
            with tempfile.TemporaryDirectory() as folder:
                figures = PARTS[part](torch.device(device), Path(folder))
            result["passed"][part] = figures | {"seconds": round(time.monotonic() - began, 1)}
        except Exception as error:  # the other parts still say what they measure
            traceback.print_exc()
            result["failed"][part] = f"{type(error).__name__}: {error}"
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="run in this environment")
    parser.add_argument("part", nargs="*", help="parts to run (default: all)")
    given = parser.parse_args()
    if given.device != "cpu" and num_devices() == 0:
        print(MISSING, file=sys.stderr)
        return NO_DEVICE
    if given.device is None:
        command = [install("gpu", REQUIREMENTS), "-m", "tests.gpu", "--device", "cuda", *given.part]
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    result = run(given.device, given.part)
    print(json.dumps(result))
    return FAILED if result["failed"] else PASSED


if __name__ == "__main__":
    sys.exit(main())
