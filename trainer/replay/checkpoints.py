"""The checkpoints of a recorded run: in its folder, or wherever the run kept them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from lossguard import ConfigurationError
from lossguard.torch import checkpoints_in
from trainer.errors import UsageError

Found = Mapping[int, Path]
"""Step -> folder."""


class ChosenCheckpoints(Mapping[int, Path]):
    """Some checkpoints, each of one place. A folder is looked up, and downloaded, only when it is asked for."""

    def __init__(self, places: Mapping[int, Found]) -> None:
        """`places`: step -> where it is."""
        self._places = places

    def __getitem__(self, step: int) -> Path:
        return self._places[step][step]

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def find_checkpoints(place: str | Path, downloads: Path) -> tuple[Found, Found]:
    """The checkpoints of a run at a folder or URL, and those that its last rollback discarded. Raises UsageError.

    Those at a URL are downloaded into the folder `downloads` when they are asked for.
    """
    try:
        return checkpoints_in(place, downloads=downloads), checkpoints_in(place, discarded=True, downloads=downloads)
    except (ConfigurationError, OSError) as problem:
        raise UsageError(f"The checkpoints cannot be read: {problem}.") from None
