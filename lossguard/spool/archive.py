"""Delivered spools take less space: compressed, or without their steps. What is not delivered is never touched.

    <session>.spool   ->   <session>.spool.gz   every line, compressed (unless `Keep.UNDELIVERED`)
                           <session>.control    the lines that a resumed run needs: registration, segments, answers

The new files are complete on the disk before the old one is deleted, so a crash at any moment leaves one or both; a
spool that exists counts, and the rest is made again.
"""

import errno
import gzip
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import IO

from lossguard.spool.folders import lock_file, open_private
from lossguard.spool.lines import has_checksum
from lossguard.spool.set_aside import SetAside
from lossguard.spool.spool import spools_in
from lossguard.spool.spool_reader import SpoolReader, is_delivered
from lossguard.vocabulary.errors import logger

CONTROL = ("run", "segment", "answer")
"""Kinds of lines that a resumed run needs."""
PARTIAL = ".partial"
COMPRESSION = 3
"""Level of gzip: 6 takes twice as long and saves a few percent."""
FILE_LIMIT = 16 << 20
"""Bytes of one file of a session whose delivered files are archived."""


class Keep(StrEnum):
    """The part of delivered spools that stays on the disk."""

    ALL = "all"  # everything, as it was written
    COMPRESSED = "compressed"  # everything, delivered files with gzip
    UNDELIVERED = "undelivered"  # of delivered files only what a resumed run needs, without steps


def trim(directory: Path, keep: Keep) -> Iterator[tuple[Path, int, int]]:
    """Archive the delivered spools of a run: (spool, bytes before, bytes after) of each.

    A spool stays as it is if a process writes it, or if its last session may go on: it was written by a release that
    does not lock its files and is not finished. Steps that the collector rejected may be sent again once it takes them:
    then all of it is kept, compressed. Raises OSError when an archive cannot be written; nothing is lost then.
    """
    set_aside = SetAside(directory)
    with_damage = {each.spool for each in set_aside.damaged}
    is_compressed = keep is Keep.COMPRESSED or set_aside.num_rejected() > 0
    for path in [] if keep is Keep.ALL else spools_in(directory):
        with suppress(FileNotFoundError), path.open("rb+") as file:  # NFS wants a writable file for an exclusive lock
            if _is_over(path, file):  # and locked until it is replaced: two trims would delete each other's files
                before = path.stat().st_size
                yield path, before, _archive(path, is_compressed or path.name in with_damage)
    if keep is Keep.UNDELIVERED and not is_compressed:
        for archive in directory.glob("*.spool.gz"):  # what was compressed earlier
            spool = archive.with_suffix("")
            is_alone = spool.with_suffix(".control").exists() and not spool.exists()  # nobody makes or restores it
            if is_alone and spool.name not in with_damage:
                with suppress(FileNotFoundError):  # another trim has deleted it
                    before = archive.stat().st_size
                    archive.unlink()
                    yield archive, before, 0


def restore(directory: Path) -> Iterator[Path]:
    """Undo the compression: the spools of a run as they were, to be delivered again. Raises OSError.

    A damaged archive stays as it is, with a warning.
    """
    for archive in sorted(directory.glob("*.spool.gz")):
        path = archive.with_suffix("")
        with ExitStack() as locked:
            with suppress(OSError):  # it is not there, or the file system has no locks: then nobody trims it
                lock_file(locked.enter_context(path.open("rb+")), wait=True)  # who trims it is about to delete it
            if not path.exists():
                try:
                    with gzip.open(archive) as source, _new(path) as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
                    logger.warning(f"{archive} is damaged, and its steps are not delivered again: {problem}")
                    continue
            archive.unlink(missing_ok=True)
            path.with_suffix(".control").unlink(missing_ok=True)
        yield path


def deliver_again(directory: Path) -> None:
    """Have everything in the spools of a run delivered once more, also what was compressed. Raises OSError."""
    for _ in restore(directory):
        pass
    for path in spools_in(directory):
        path.with_suffix(".acknowledged").unlink(missing_ok=True)


def _is_over(path: Path, file: IO[bytes]) -> bool:
    """True if all of it is delivered and nobody will append to it; then it is locked until it is closed."""
    try:
        lock_file(file)
    except OSError:
        return False
    size = path.stat().st_size
    if size == 0 or not is_delivered(path):
        return False
    file.seek(max(0, size - (1 << 16)))
    last = file.read().splitlines(keepends=True)[-1]
    return has_checksum(last)


def _archive(path: Path, compressed: bool) -> int:
    """Replace a delivered spool. Returns the bytes of what replaces it."""
    made = [path.with_suffix(".control")]
    with SpoolReader(path) as reader, _new(made[0]) as target:
        for line in reader.records(*CONTROL):
            target.write(line.raw)
    if compressed:
        made.append(path.with_suffix(".spool.gz"))
        with path.open("rb") as source, _new(made[1]) as file, gzip.GzipFile("", "wb", COMPRESSION, file) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        _verify(path, made[1])
    path.unlink()
    path.with_suffix(".acknowledged").unlink(missing_ok=True)
    return sum(each.stat().st_size for each in made)


def _verify(path: Path, archive: Path) -> None:
    """Raises OSError unless the archive contains the spool, byte for byte."""
    with path.open("rb") as original, gzip.open(archive) as file:
        while (data := original.read(1 << 20)) or file.read(1):
            if file.read(len(data)) != data:
                raise OSError(errno.EIO, f"{archive} is not as it was written")


@contextmanager
def _new(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when it is complete and on the disk."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with open(partial, "wb", opener=open_private) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        path.unlink(missing_ok=True)  # of an attempt that was cut off; some file systems do not rename onto a file
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
