"""Where checkpoints are kept: a folder on a disk, or a URL."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossguard.ranks import Ranks
from lossguard.remote_files import RemoteFiles, is_remote, local_path
from lossguard.torch.local_folder import LocalFolder, ReadFolder
from lossguard.torch.manifest import DISCARDED, folders_in
from lossguard.torch.remote_folder import RemoteFolder
from lossguard.torch.remote_reading import DownloadedCheckpoints, RemoteReadFolder

Place = LocalFolder | RemoteFolder
ReadPlace = ReadFolder | RemoteReadFolder
"""A checkpoint that is being read there."""


def place_of(
    directory: str | os.PathLike[str],
    ranks: Ranks,
    *,
    staging: str | os.PathLike[str] | None,
    options: Mapping[str, Any] | None,
) -> Place:
    """The place that a path or a URL names; every rank calls it, and rank 0's `directory` counts.

    `staging` and `options` are for a URL. Raises ValueError for a place that cannot hold checkpoints.
    """
    directory = ranks.broadcast(directory)
    if not is_remote(directory):
        if options is not None:
            raise ValueError(f"{directory} is no URL of another place: leave out storage_options")
        return LocalFolder(local_path(os.fspath(directory)), ranks)
    return RemoteFolder(RemoteFiles(str(directory), options), ranks, None if staging is None else Path(staging))


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
