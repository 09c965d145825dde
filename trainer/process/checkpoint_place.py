"""The place of a run's checkpoints if it is not the run's folder."""

from pathlib import Path

from trainer.errors import UsageError


def checkpoint_place(given: str | None, folder: Path) -> str | None:
    """The place of one run below the folder or URL of all runs; None where none is `given`.

    `folder`: that of the run, PROJECT/RUN in the folder of all runs. Raises UsageError for a URL without a place.
    """
    if given is None:
        return None
    place = given.rstrip("/")
    if "://" in given and place.endswith(":"):  # without its slashes it would be the name of a folder
        raise UsageError(f"--checkpoints {given!r} names no place: give a bucket too, as in s3://bucket/runs.")
    return f"{place}/{folder.parent.name}/{folder.name}"
