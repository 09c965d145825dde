"""Where the checkpoints of a run are kept if not in its folder."""

from pathlib import Path


def checkpoint_place(given: str | None, folder: Path) -> str | None:
    """The place of one run below the folder or URL of all runs; None where none is `given`.

    `folder`: that of the run, PROJECT/RUN in the folder of all runs.
    """
    return None if given is None else f"{given.rstrip('/')}/{folder.parent.name}/{folder.name}"
