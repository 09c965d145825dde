"""Starts programs on several ranks with torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def run_scenarios(num_ranks: int, folder: Path, **environment: str) -> list[dict[str, Any]]:
    """What each rank saw, by rank and by the name of the scenario. `environment`: further variables."""
    done = subprocess.run(
        [*TORCHRUN, f"--nproc-per-node={num_ranks}", "-m", "tests.ranks.scenarios", str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return [json.loads((folder / f"rank-{rank}-of-{num_ranks}.json").read_text()) for rank in range(num_ranks)]
