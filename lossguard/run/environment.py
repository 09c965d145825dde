"""The environment of a run as it is recorded: command, git commit, host, devices and versions."""

import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from typing import Any

from lossguard.vocabulary.protocol import MAX_TEXT, storable
from lossguard.vocabulary.secrets import mask_command


def describe_environment() -> dict[str, Any]:
    """Command, git commit, host, devices and versions of this process. Initialises no device.

    The command is that typed in a shell: the interpreter without its folder, and secrets masked.
    """
    command = [os.path.basename(sys.orig_argv[0]), *mask_command([each[:MAX_TEXT] for each in sys.orig_argv[1:]])]
    return {
        "command": storable(" ".join(command))[:MAX_TEXT],
        "git_commit": git_commit(),
        "host": socket.gethostname(),
        "devices": devices(),
        "versions": versions(),
    }


def git_commit() -> str | None:
    """The commit of the working directory; None outside of a repository."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        process = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip() or None if process.returncode == 0 else None


def devices() -> list[str]:
    """The accelerators, by name once they are in use: asking earlier would initialise the driver."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        count = range(torch.cuda.device_count())
        return [torch.cuda.get_device_name(i) if torch.cuda.is_initialized() else f"cuda:{i}" for i in count]
    return [platform.processor() or platform.machine()]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter for a run."""
    found = {"python": platform.python_version()}
    for package in ("lossguard", "torch", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
