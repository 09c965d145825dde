"""The command line of the trainer in a process of its own, on a model that trains in seconds."""

import os
import subprocess
import sys
from pathlib import Path

from tests import fork_server
from tests.trainer.small import TEXT

SMALL = [
    "model.layers=1",
    "model.heads=2",
    "model.width=16",
    "model.context=16",
    "data.batch_size=4",
    "checkpoint.every=5",
    "log_every=10",
]


def command(folder: Path, *arguments: str) -> list[str]:
    (folder / "text.txt").write_bytes(TEXT)
    overrides = [word for override in SMALL for word in ("--set", override)]
    common = ["--data", str(folder / "text.txt"), "--out", str(folder / "out"), *overrides]
    return [sys.executable, "-m", "trainer", "run", *common, *arguments]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOSSGUARD_")}
    return kept | {"OMP_NUM_THREADS": "1"}


def run_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return fork_server.run("trainer", *command(folder, *arguments)[3:], env=environment())
