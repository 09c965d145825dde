"""The code of the previous release, for tests and benchmarks in which it runs beside that of this one."""

import io
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMIT = "aa7fefd86565365ad6d7fd877369a78b98edc581"
"""The last commit at schema 0019, before steps in blocks."""


class NoHistory(Exception):
    """The message is one sentence: the commit is not in this clone."""


def unpack(folder: Path, commit: str = COMMIT) -> Path:
    """The code of the commit, unpacked in `folder`. Raises NoHistory where git does not have it."""
    try:
        packed = subprocess.run(("git", "archive", commit), cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise NoHistory(
            f"the previous release, {commit[:7]}, is not in this clone; run: git fetch --unshallow"
        ) from None
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder
