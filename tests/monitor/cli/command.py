"""Runs the collector's commands as a user does."""

import os
import subprocess

from tests import fork_server


def monitor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m monitor ARGUMENTS`, with these variables added to the environment."""
    return fork_server.run("monitor", *arguments, env=os.environ | environment)
