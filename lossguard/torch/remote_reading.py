"""Checkpoints at a URL, on their way to a disk of this machine."""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from lossguard.errors import CheckpointError
from lossguard.ranks import Ranks
from lossguard.remote_files import RemoteFiles
from lossguard.torch.files import check_files, check_name
from lossguard.torch.manifest import DISCARDED, decoded, folder_name, write_manifest
from lossguard.torch.remote_listing import FOLDER, NUM_REQUESTS, RemoteListing, manifest_name


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

    def need(self, files: Mapping[str, Any], names: Collection[str]) -> None:
        """Have these files in `folder`. Raises CheckpointError if one is not intact, and OSError."""
        folder = self.folder
        for name in names:
            (folder / check_name(name)).parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(NUM_REQUESTS) as pool:
            list(pool.map(lambda name: self._files.get(f"{self._where}/{name}", folder / name), names))
        check_files(self.folder, files, names)

    need_more = need

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
        if not place.is_dir():
            self._download(step, place)
        return place

    def _download(self, step: int, place: Path) -> None:
        partial = place.with_name(f"{place.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        reading = RemoteReadFolder(self._files, manifest_name(step, self._parent), lambda: partial)
        try:
            manifest = reading.manifest()
            reading.need(manifest["files"], manifest["files"].keys())
        except (ValueError, LookupError, TypeError) as problem:
            raise CheckpointError(f"the manifest of step {step} at {self._files} is damaged: {problem}") from problem
        write_manifest(partial, manifest)
        partial.rename(place)

    def __iter__(self) -> Iterator[int]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)
