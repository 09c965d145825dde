"""What a run records about itself at its start, and how values of users become JSON."""

import dataclasses
import numbers
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from lossguard.protocol import MAX_TEXT, encode_number
from lossguard.scalars import plain


def plain_json(value: Any) -> Any:
    """A strictly JSON-able copy of `value`: non-finite numbers as in the protocol, the unknown as str()."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {storable(str(key)): plain_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_json(each) for each in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, numbers.Real):  # NumPy's too
        return encode_number(plain(value))
    return storable(str(value))


def storable(text: str) -> str:
    """`text` without the halves of characters that Python makes of bytes that are no UTF-8, which JSON cannot carry,
    and without NUL, which no store takes: its symbol stands in its place."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\u2400")


def surroundings() -> dict[str, Any]:
    """Command, git commit, host, devices and versions of this process. Asks no device anything."""
    return {
        "command": _command(),
        "git_commit": git_commit(),
        "host": socket.gethostname(),
        "devices": devices(),
        "versions": versions(),
    }


def _command() -> str:
    """As one would type it: the interpreter without its folder."""
    return storable(" ".join([os.path.basename(sys.orig_argv[0]), *sys.orig_argv[1:]]))[:MAX_TEXT]


def git_commit() -> str | None:
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def devices() -> list[str]:
    """Names of the accelerators, when the loop has begun to use them: asking earlier would initialise the driver."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        count = range(torch.cuda.device_count())
        return [torch.cuda.get_device_name(i) if torch.cuda.is_initialized() else f"cuda:{i}" for i in count]
    return [platform.processor() or platform.machine()]


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("lossguard", "torch", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
