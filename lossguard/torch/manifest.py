"""The manifest of a checkpoint: the last file that is written, sealed with a checksum of itself.

A folder is a checkpoint if it has the name of its step and holds a manifest. Whatever else lies beside it is ignored.
"""

import json
import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from lossguard.errors import CheckpointError
from lossguard.torch.files import write_bytes

MANIFEST = "manifest.json"
DISCARDED = "discarded"
"""The folder of what the last rollback discarded."""
UNSEALED_KEYS = {"step", "format", "files", "objects", "ranks"}
"""All that a manifest of an earlier release holds, which has no checksum of itself."""


def folder_name(step: int) -> str:
    """The name of the folder that holds the checkpoint of `step`."""
    return f"step-{step:09d}"


def folders_in(directory: Path) -> dict[int, Path]:
    """Step -> folder of each complete checkpoint in `directory`, ascending; also of links to such folders."""
    paths = {int(path.name[5:]): path for path in directory.glob("step-*") if re.fullmatch("[0-9]+", path.name[5:])}
    return {
        step: path
        for step, path in sorted(paths.items())
        if path.name == folder_name(step) and os.path.isfile(path / MANIFEST)
    }


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest, and flush it to the disk."""
    write_bytes(folder / MANIFEST, encoded(content))


def encoded(content: Mapping[str, Any]) -> bytes:
    """A manifest with its checksum, as it is written."""
    return _sealed(json.dumps(content, indent=1).encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of a manifest. Raises CheckpointError if it is damaged, ValueError if it is not JSON, and OSError."""
    return decoded((folder / MANIFEST).read_bytes())


def decoded(written: bytes) -> dict[str, Any]:
    """Undo `encoded`. Raises CheckpointError if it is damaged, and ValueError if it is not JSON."""
    content: dict[str, Any] = json.loads(written)
    if _sealed(written[:-_SEAL_BYTES] + _END) == written:
        del content["sha256"]
        return content
    if not set(content) <= UNSEALED_KEYS:
        raise CheckpointError(f"{MANIFEST} is damaged (checksum)")
    return content


_END = b"\n}"


def _sealed(content: bytes) -> bytes:
    """A JSON object that ends with _END, with its own SHA-256 as its last value."""
    return content.removesuffix(_END) + b',\n "sha256": "%s"' % sha256(content).hexdigest().encode() + _END


_SEAL_BYTES = len(_sealed(_END))
