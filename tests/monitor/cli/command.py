"""Runs the collector's commands as a user does."""

import os
import subprocess
import sys


def monitor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m monitor ARGUMENTS`, with these variables added to the environment."""
    return subprocess.run(
        [sys.executable, "-m", "monitor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
        timeout=60,
    )
