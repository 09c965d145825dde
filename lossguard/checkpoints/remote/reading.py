"""Checkpoints at a URL: which of them are whole, their download, and the process that writes them."""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lossguard.checkpoints.files import (
    DISCARDED,
    MANIFEST,
    check_files,
    check_name,
    decoded,
    folder_name,
    folders_in,
    write_manifest,
)
from lossguard.checkpoints.remote.files import RemoteFiles, is_remote, local_path
from lossguard.run.ranks import Ranks
from lossguard.spool.writer import this_process
from lossguard.vocabulary.errors import CheckpointError, logger

# Whole checkpoints.
#
# <url>/step-000000050/manifest.json     sizes and SHA-256 of the files, and the folder in which they lie
#       files/000000050-3f2a9c1b/...     the files; each attempt to save has a folder of its own
#       discarded/step-...               manifests of some that the last rollback discarded

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
        """List what is there now. A checkpoint that is not whole is left out with a warning. Raises OSError."""
        found, sizes = cls(), files.sizes()
        found.garbage = {"/".join(name.split("/")[:2]) for name in sizes if name.startswith(f"{FILES}/")}
        matches = {name: match for name in sizes if (match := _MANIFEST.fullmatch(name))}
        with ThreadPoolExecutor(NUM_REQUESTS) as pool:
            examined = pool.map(lambda name: examine(files, name, sizes), matches)
            for (name, match), (folder, problem) in zip(matches.items(), examined, strict=True):
                if problem is None:
                    (found.discarded if match[1] else found.folders)[int(match[2])] = folder
                    continue
                logger.warning("%s/%s is not a whole checkpoint: %s", files, name, problem)
                kept = f"{FILES}/{match[2]}-"  # for a person who wants to see what is left of it
                found.garbage = {each for each in found.garbage if not each.startswith(kept)}
        found.garbage -= {*found.folders.values(), *found.discarded.values()}
        return found


def manifest_name(step: int, folder: str = "") -> str:
    """The name of the manifest of `step`, of the run or in a folder."""
    return f"{folder}/{folder_name(step)}/{MANIFEST}".lstrip("/")


def examine(files: RemoteFiles, name: str, sizes: Mapping[str, int] | None = None) -> tuple[str, str | None]:
    """(the folder of the files that a manifest lists, why they are not a whole checkpoint; None if they are).

    `sizes`: of the files there, if they are known. Raises OSError.
    """
    try:
        content = decoded(files.read(name))
        folder = check_name(content[FOLDER])
    except (CheckpointError, ValueError, LookupError, TypeError) as problem:
        return "", str(problem)
    return folder, missing_file(content, files.sizes(folder) if sizes is None else sizes)


def missing_file(manifest: Mapping[str, Any], sizes: Mapping[str, int]) -> str | None:
    """Return why the files of a manifest are not all there; None if they are."""
    for name, written in manifest["files"].items():
        where = f"{manifest[FOLDER]}/{name}"
        if sizes.get(where) != written["bytes"]:
            return f"{where} is missing or has another size than it was written with"
    return None


# Downloads to a disk of this machine.


class RemoteReadFolder:
    """A checkpoint that is being read. What is needed of it is downloaded into `folder`, and compared."""

    def __init__(self, files: RemoteFiles, name: str, new_folder: Callable[[], Path]) -> None:
        """`name`: of the manifest; `new_folder` makes the folder."""
        self._files, self._name, self._new_folder = files, name, new_folder
        self._where = ""

    @cached_property
    def folder(self) -> Path:
        """Created at its first use: a restore from memory does not need the disk."""
        return self._new_folder()

    def manifest(self) -> dict[str, Any]:
        """Raises CheckpointError if it is damaged, ValueError if it is not JSON, and OSError."""
        content = decoded(self._files.read(self._name))
        self._where = check_name(content.pop(FOLDER))
        return content

    def fetch(self, files: Mapping[str, Any], names: Collection[str]) -> None:
        """Have these files in `folder`. Raises CheckpointError if one is not intact, and OSError."""
        folder = self.folder
        for name in names:
            (folder / check_name(name)).parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(NUM_REQUESTS) as pool:
            list(pool.map(lambda name: self._files.get(f"{self._where}/{name}", folder / name), names))
        check_files(self.folder, files, names)

    def check_all(self, files: Mapping[str, Any], ranks: Ranks) -> None:
        """Each rank compares what it downloads."""


class DownloadedCheckpoints(Mapping[int, Path]):
    """Step -> folder of a checkpoint of one run at a URL. Each is downloaded into `folder` when it is asked for.

    `discarded`: those that the last rollback discarded. Raises OSError for a URL that cannot be read, and
    CheckpointError for a checkpoint that is not intact.
    """

    def __init__(self, files: RemoteFiles, folder: Path, *, discarded: bool) -> None:
        self._files, self._folder = files, folder
        listing = RemoteListing.of(self._files)
        self._steps = sorted(listing.discarded if discarded else listing.folders)
        self._parent = DISCARDED if discarded else ""

    def __getitem__(self, step: int) -> Path:
        if step not in self._steps:
            raise KeyError(step)
        place = self._folder / self._parent / folder_name(step)
        if place.is_dir():
            return place
        partial = place.with_name(f"{place.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        reading = RemoteReadFolder(self._files, manifest_name(step, self._parent), lambda: partial)
        try:
            manifest = reading.manifest()
            reading.fetch(manifest["files"], manifest["files"].keys())
        except (ValueError, LookupError, TypeError) as problem:
            raise CheckpointError(f"the manifest of step {step} at {self._files} is damaged: {problem}") from problem
        write_manifest(partial, manifest)
        return partial.rename(place)

    def __iter__(self) -> Iterator[int]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)


def checkpoints_in(
    directory: str | os.PathLike[str], *, discarded: bool = False, downloads: str | os.PathLike[str] | None = None
) -> Mapping[int, Path]:
    """Step -> folder of each complete checkpoint in a folder or at a URL, ascending; also of links to such folders.

    `discarded`: those that the last rollback discarded. From a URL, a checkpoint is downloaded and compared when its
    folder is asked for, into the folder `downloads` (by default one for temporary files, which stays).
    Raises OSError for a URL that cannot be read, and ConfigurationError for one that cannot be opened.
    """
    if is_remote(directory):
        folder = tempfile.mkdtemp(prefix="lossguard-") if downloads is None else downloads
        return DownloadedCheckpoints(RemoteFiles(str(directory)), Path(folder), discarded=discarded)
    local = local_path(directory)
    return folders_in(local / DISCARDED if discarded else local)


# The writer: the last process to begin, because an object store has no locks.
#
# `<url>/writer.json` names it. A process that is no longer named there stops saving.

WRITER = "writer.json"


class RemoteWriter:
    """This process, as one that writes at the URL of `files`."""

    def __init__(self, files: RemoteFiles) -> None:
        self._files = files
        self._id = os.urandom(8).hex()
        self.has_begun = False

    def begin(self) -> None:
        """Take the place of whichever process wrote before. Raises OSError."""
        facts = {"id": self._id, "process": this_process(), "since": time.time()}
        self._files.write(WRITER, json.dumps(facts).encode())
        self.has_begun = True

    def check(self) -> None:
        """Raise CheckpointError if another process has begun since, and OSError if nobody can tell."""
        try:
            named = json.loads(self._files.read(WRITER))
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(named["since"])))
            owner, process = named["id"], named["process"]
        except (ValueError, LookupError, TypeError, OverflowError) as problem:
            raise OSError(f"{self._files}/{WRITER} cannot be understood: {problem}") from problem
        if owner != self._id:
            raise CheckpointError(
                f"process {process} saves its checkpoints at {self._files} since {since}: give each a URL of its own"
            )
