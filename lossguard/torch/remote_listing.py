"""Which checkpoints are at a URL, whole.

<url>/step-000000050/manifest.json     sizes and SHA-256 of the files, and the folder in which they lie
      files/000000050-3f2a9c1b/...     the files; each attempt to save has a folder of its own
      discarded/step-...               manifests of some that the last rollback discarded
"""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from lossguard.errors import CheckpointError
from lossguard.log_once import logger
from lossguard.remote_files import RemoteFiles
from lossguard.torch.files import check_name
from lossguard.torch.manifest import DISCARDED, MANIFEST, decoded, folder_name

FILES = "files"
FOLDER = "folder"
"""The key of a manifest that says where the files are."""
_MANIFEST = re.compile(rf"(?:({DISCARDED})/)?step-(\d{{9,}})/{MANIFEST}")
NUM_REQUESTS = 8
"""At once, where several files are read."""


@dataclass(slots=True)
class RemoteListing:
    """Step -> folder of its files, of what `manifests` name."""

    folders: dict[int, str] = field(default_factory=dict)
    discarded: dict[int, str] = field(default_factory=dict)
    garbage: set[str] = field(default_factory=set)
    """Folders that no manifest names."""

    @classmethod
    def of(cls, files: RemoteFiles) -> "RemoteListing":
        """What is there now. A checkpoint that is not whole is left out with a warning. Raises OSError."""
        found, sizes = cls(), files.sizes()
        found.garbage = {"/".join(name.split("/")[:2]) for name in sizes if name.startswith(f"{FILES}/")}
        matches = {name: match for name in sizes if (match := _MANIFEST.fullmatch(name))}
        with ThreadPoolExecutor(NUM_REQUESTS) as pool:
            contents = pool.map(lambda name: read_manifest_at(files, name), matches)
            for (name, match), content in zip(matches.items(), contents, strict=True):
                found._add(f"{files}/{name}", match, content, sizes)
        found.garbage -= {*found.folders.values(), *found.discarded.values()}
        return found

    def _add(self, place: str, match: re.Match[str], content: dict[str, Any] | str, sizes: Mapping[str, int]) -> None:
        problem = content if isinstance(content, str) else missing_file(content, sizes)
        if problem is None:
            assert isinstance(content, dict)
            (self.discarded if match[1] else self.folders)[int(match[2])] = content[FOLDER]
            return
        logger.warning("%s is not a whole checkpoint: %s", place, problem)
        kept = f"{FILES}/{match[2]}-"  # for a person who wants to see what is left of it
        self.garbage = {folder for folder in self.garbage if not folder.startswith(kept)}


def manifest_name(step: int, folder: str = "") -> str:
    """The name of the manifest of `step`, of the run or in a folder."""
    return f"{folder}/{folder_name(step)}/{MANIFEST}".lstrip("/")


def read_manifest_at(files: RemoteFiles, name: str) -> dict[str, Any] | str:
    """The content of a manifest, or what is wrong with it. Raises OSError."""
    try:
        content = decoded(files.read(name))
        check_name(content[FOLDER])
        return content
    except (CheckpointError, ValueError, LookupError, TypeError) as problem:
        return str(problem)


def missing_file(manifest: Mapping[str, Any], sizes: Mapping[str, int]) -> str | None:
    """Why the files of a manifest are not all there; None if they are."""
    for name, written in manifest["files"].items():
        where = f"{manifest[FOLDER]}/{name}"
        if sizes.get(where) != written["bytes"]:
            return f"{where} is missing or has another size than it was written with"
    return None
