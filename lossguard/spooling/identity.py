"""The identity of a run's folder: a random id in the file `writer`. Whoever has locked the folder is that writer."""

import os
import re
from pathlib import Path

from lossguard.writer import Writer, new_writer_id, this_process

WRITER_FILE = "writer"
_ID = re.compile("[0-9a-f]{32}")


def writer_of(directory: Path, session: str) -> Writer:
    """This process as the writer of a run's folder, which it has locked; a new folder gets an id."""
    known = known_writer(directory, session)
    return known or Writer(id=_new_id(directory), session=session, process=this_process())


def known_writer(directory: Path, session: str) -> Writer | None:
    """The same without writing anything: None for a folder without an id, as older releases leave it."""
    try:
        text = (directory / WRITER_FILE).read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return Writer(id=text, session=session, process=this_process()) if _ID.fullmatch(text) else None


def _new_id(directory: Path) -> str:
    """Random. If it cannot be saved, a restart counts as another folder: it waits for the lease to run out."""
    id = new_writer_id()
    partial = directory / f"{WRITER_FILE}.partial"
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(f"{id}\n")
        partial.replace(directory / WRITER_FILE)
    except OSError:
        partial.unlink(missing_ok=True)
    return id
