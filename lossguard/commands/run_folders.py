"""The folders of runs below a directory, for the commands that work on all of them."""

from pathlib import Path

from lossguard.errors import ConfigurationError


def run_folders_in(directory: Path) -> list[Path]:
    """The folders with spools or with what was made of them. Raises ConfigurationError where there are none."""
    runs = {path.parent for pattern in ("*.spool", "*.control") for path in directory.rglob(pattern)}
    if not runs:
        raise ConfigurationError(f"there are no spools in {directory}")
    return sorted(runs)
