"""Virtual environments for the projects that a benchmark compares with, apart from our packages."""

import os
import subprocess
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def python_with(*packages: str) -> Iterator[Path]:
    """The interpreter of an environment with the packages; LOSSGUARD_BENCH_PEERS names a folder in which to keep it."""
    permanent = os.environ.get("LOSSGUARD_BENCH_PEERS")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(permanent or folder)
        python = home / "bin/python"
        if not python.exists():
            venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        yield python
