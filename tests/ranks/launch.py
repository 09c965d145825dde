"""Starts programs on several ranks."""

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests import fork_server
from tests.ports import free_port

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def run_scenarios(num_ranks: int, folder: Path, **environment: str) -> list[dict[str, Any]]:
    """What each rank saw, by rank and by the name of the scenario. `environment`: further variables.

    The ranks start warm, with the variables that torchrun would set: six imports of torch take as long as all else.
    """
    shared = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks)} | environment
    logs = [folder / f"rank-{rank}-of-{num_ranks}.log" for rank in range(num_ranks)]
    with ExitStack() as stack:
        processes = []
        for rank, path in enumerate(logs):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            with path.open("wb") as log:
                process = fork_server.started("tests.ranks.scenarios", str(folder), env=shared | place, log=log)
            stack.callback(process.kill)  # else the others would remain, and wait for one that has failed
            processes.append(process)
        codes = [process.wait(200) for process in processes]
    assert codes == [0] * num_ranks, "\n".join(path.read_text()[-6000:] for path in logs)
    return [json.loads((folder / f"rank-{rank}-of-{num_ranks}.json").read_text()) for rank in range(num_ranks)]
