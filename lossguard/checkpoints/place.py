"""The place of checkpoints, a folder or a URL, and the rule for which of them stay."""

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lossguard.checkpoints.files import DISCARDED, folders_in
from lossguard.checkpoints.local_folder import LocalFolder, ReadFolder
from lossguard.checkpoints.remote.files import RemoteFiles, is_remote, local_path
from lossguard.checkpoints.remote.folder import RemoteFolder
from lossguard.checkpoints.remote.reading import DownloadedCheckpoints, RemoteReadFolder
from lossguard.run.ranks import Ranks

# Retention: all of the newest, and ever fewer of the older ones. So deep rollbacks are possible, and the disk stays
# small.


def steps_to_delete(
    steps: Sequence[int], *, keep: int, most: int | None = None, pinned: Collection[int] = ()
) -> list[int]:
    """Return the `steps` (ascending) to delete: not the newest `keep`, nor those pinned or needed for their age.

    The newest `keep` span D steps. Of the older ones, the oldest aged D to 2 D stays, the oldest aged 2 D to 4 D, and
    so on. So the very first stays for ever, and a run of n steps keeps about keep + log2(n / D).

    `most`: how many may stay. If they would be more, fewer of the newest count as such, and in the end the oldest go;
    the newest one and those that are pinned stay in any case.
    """
    for num in range(keep, 0, -1):
        deleted = _too_old(steps, num, pinned)
        excess = 0 if most is None else len(steps) - len(deleted) - most
        if excess <= 0:
            return deleted
    rest = [step for step in steps[:-1] if step not in deleted and step not in pinned]
    return sorted(deleted + rest[:excess])


def _too_old(steps: Sequence[int], keep: int, pinned: Collection[int]) -> list[int]:
    newest, older = steps[-keep:], steps[:-keep]
    span = max(1, newest[-1] - newest[0]) if newest else 1
    oldest_of_age: dict[int, int] = {}
    for step in older:
        oldest_of_age.setdefault(_doublings(steps[-1] - step, span), step)
    staying = {*oldest_of_age.values(), *pinned}
    return [step for step in older if step not in staying]


def num_kept(num: int, *, keep: int) -> int:
    """Return how many of `num` checkpoints at equal intervals stay."""
    return num if num <= keep else keep + 1 + _doublings(num - 1, max(1, keep - 1))


def _doublings(age: int, span: int) -> int:
    """0 for ages up to 2 spans, 1 up to 4, 2 up to 8, ..."""
    return max(0, (-(-age // span) - 1).bit_length() - 1)


# Places.

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
