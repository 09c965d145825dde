"""Where checkpoints are kept: a folder on a disk, or a URL."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossguard.ranks import Ranks
from lossguard.remote_files import RemoteFiles, is_remote, local_path
from lossguard.torch.local_folder import LocalFolder, ReadFolder
from lossguard.torch.remote_folder import RemoteFolder
from lossguard.torch.remote_reading import RemoteReadFolder

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

    Raises ValueError for one that cannot hold checkpoints.
    """
    directory = ranks.broadcast(directory)
    if not is_remote(directory):
        if staging is not None or options is not None:
            raise ValueError(f"{directory} is no URL of another place: leave out staging and storage_options")
        return LocalFolder(local_path(os.fspath(directory)), ranks)
    return RemoteFolder(RemoteFiles(str(directory), options), ranks, None if staging is None else Path(staging))
