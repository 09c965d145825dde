"""Places outside the store that keep archived steps: a folder, or what fsspec reaches (`s3://`, `gs://`, `az://`, ..).

Credentials come from the environment, as the package of the protocol reads them; none is ever part of a URL, because
the store keeps the URL of each file.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, urlsplit

from fsspec.implementations.local import LocalFileSystem

from lossguard.errors import ConfigurationError
from lossguard.remote_files import open_files, reason

VOLATILE = {"memory", "http", "https", "data", "reference"}
"""Protocols of fsspec that keep nothing, or cannot be written."""

MARKER = "lossguard-archive.txt"
"""A file at the top of a folder with archived steps: without it, the folder is not mounted."""
MARKER_TEXT = "The folders beside this file hold steps of training runs that a Lossguard store refers to.\n"

NOT_THERE = "it was moved, or the place is not mounted here"


class PlaceError(Exception):
    """A place, or a file in it, cannot be used; the message is one sentence."""


class FileMissing(PlaceError):
    """The place can be read, and the file is not there."""


class Place:
    """A folder of files that are written once, whole, and never changed."""

    def __init__(self, url: str) -> None:
        """`url` as the user gives it, or a path. Raises PlaceError."""
        self.url = absolute(url)
        try:
            self._files, self._root = open_files(self.url)
        except ConfigurationError as error:
            raise PlaceError(str(error)) from error

    def prepare(self, *, has_files: bool) -> None:
        """Make a folder ready for its first file. `has_files`: the store has some there, so it must be the same folder.

        Raises PlaceError.
        """
        if not isinstance(self._files, LocalFileSystem):
            return
        with self._failing_as("write", MARKER):
            marker = Path(self._root, MARKER)
            if has_files:
                self._check_mounted()
            elif not marker.exists():
                marker.parent.mkdir(parents=True, exist_ok=True)
                _write_durably(marker, MARKER_TEXT.encode())

    def write(self, name: str, content: bytes) -> None:
        """Write a file; when this returns it is durable. What fails half-way may leave a part of it."""
        path = self._path(name)
        with self._failing_as("write", name):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            if not isinstance(self._files, LocalFileSystem):
                self._files.pipe_file(path, content)
                return
            _write_durably(Path(path), content)

    def read(self, name: str) -> bytes:
        """A whole file. Raises FileMissing, PlaceError."""
        with self._failing_as("read", name):
            content: bytes = self._files.cat_file(self._path(name))
        return content

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """The bytes [start, end) of a file. Raises FileMissing, PlaceError."""
        with self._failing_as("read", name):
            content: bytes = self._files.cat_file(self._path(name), start=start, end=end)
        return content

    def size(self, name: str) -> int:
        """Bytes of a file. Raises FileMissing, PlaceError."""
        with self._failing_as("read", name):
            return int(self._files.info(self._path(name))["size"])

    def remove(self, name: str) -> None:
        """Remove a file, whether it is there or not; a folder that it leaves empty goes too."""
        path = self._path(name)
        with self._failing_as("remove", name):
            if not isinstance(self._files, LocalFileSystem):
                with suppress(FileNotFoundError):
                    self._files.rm_file(path)
                return
            self._check_mounted()  # else a file that is there again tomorrow is forgotten
            Path(path).unlink(missing_ok=True)
            _remove_empty(Path(path).parent, Path(self._root))

    def _check_mounted(self) -> None:
        if not Path(self._root, MARKER).exists():
            raise OSError(f"the folder has no file {MARKER}; is it mounted?")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _failing_as(self, verb: str, name: str) -> Iterator[None]:
        """Each package of fsspec has errors of its own, so all of them become ours."""
        self._files.invalidate_cache()  # of listings: another process may have written or removed the file
        try:
            yield
        except FileNotFoundError as error:
            if verb == "read":
                raise FileMissing(f"there is no file {self.url}/{name}; {NOT_THERE}") from error
            raise PlaceError(f"cannot {verb} {self.url}/{name}: {reason(error)}") from error
        except Exception as error:
            raise PlaceError(f"cannot {verb} {self.url}/{name}: {reason(error)}") from error


@lru_cache(maxsize=32)
def opened(url: str) -> Place:
    """The place of an absolute URL; each process connects to it once. Raises PlaceError."""
    return Place(url)


def absolute(url: str) -> str:
    """The URL as the store keeps it: a path becomes an absolute `file://` URL. Raises PlaceError."""
    if "://" not in url:
        if not url:
            _refuse(url, "it is empty")
        return f"file://{Path(url).expanduser().absolute()}"
    if "::" in url:
        _refuse(url, "chained URLs are not supported")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        _refuse(url, str(error))
    if parts.password is not None:
        _refuse(f"{parts.scheme}://..", "put the credentials into the environment, not into the URL")
    if parts.scheme in VOLATILE:
        _refuse(url, f"{parts.scheme} keeps no files; give a folder, s3://.. or another object store")
    return url.rstrip("/")


def path_segment(text: str) -> str:
    """Any text as one segment of a path, readable and without a meaning of its own."""
    return quote(text, safe="").replace(".", "%2E")


def _refuse(url: str, why: str) -> NoReturn:
    raise PlaceError(f"{url!r} is no place for archived steps: {why}")


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Else the name of a new file may be lost with the power, though not its content."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and folder.is_relative_to(root) and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


class RemoteFile(io.RawIOBase):
    """A file of a place to be read at any offset: each read is one request for exactly those bytes."""

    def __init__(self, place: Place, name: str, size: int) -> None:
        self._place, self._name, self._size, self._at = place, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        content = self._place.read_range(self._name, self._at, end)
        self._at += len(content)
        return content
