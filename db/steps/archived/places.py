"""Places outside the store that keep archived steps: a folder, or what fsspec reaches (`s3://`, `gs://`, `az://`, ..).

Credentials come from the environment, as the package of the protocol reads them; none is ever part of a URL, because
the store keeps the URL of each file.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, NoReturn
from urllib.parse import quote

from fsspec.implementations.local import LocalFileSystem

from lossguard.checkpoints.remote.files import ON_DISK, holds_secret, is_missing_bucket, open_files, reason, shown_url
from lossguard.vocabulary.errors import ConfigurationError

VOLATILE = {"memory", "http", "https", "data", "reference"}
"""Protocols of fsspec that keep nothing, or cannot be written."""

MARKER = "lossguard-archive.txt"
"""A file at the top of a place with archived steps: a folder without it is not mounted."""
MARKER_TEXT = "The folders beside this file hold steps of training runs that a Lossguard store refers to.\n"

VERSION_KEYS = ("mtime", "e_tag", "ETag", "etag", "last_modified", "LastModified", "generation")
"""Keys under which fsspec's packages name the version of a file."""

NOT_MOUNTED = f"is it mounted? The folder has no file {MARKER}"


class PlaceError(Exception):
    """A place, or a file in it, cannot be used; the message is one sentence."""


class FileMissing(PlaceError):
    """The place can be read, and the file is not there."""


class FileVersion(NamedTuple):
    """A file at a moment."""

    num_bytes: int
    marks: tuple[str, ...]
    """Marks of the version, such as the time of its last change; a file that is written anew has others."""


class Place:
    """A folder of files that are written once, whole, and never changed."""

    def __init__(self, url: str) -> None:
        """`url` as the user gives it, or a path. Raises PlaceError."""
        self.url = absolute(url)
        try:
            self._files, self._root = open_files(self.url)
        except ConfigurationError as error:
            raise PlaceError(str(error)) from error
        self._is_folder = isinstance(self._files, LocalFileSystem)

    def prepare(self, *, has_files: bool) -> None:
        """Write the marker, so that a place that cannot be written is known before the store says that it has a file.

        `has_files`: the store has some there, so a folder must be the same one. Raises PlaceError.
        """
        with self._opening("write", MARKER) as path:
            if not self._is_folder:
                self._files.pipe_file(path, MARKER_TEXT.encode())
                return
            marker = Path(path)
            if has_files:
                self._check_mounted()
            elif not marker.exists():
                marker.parent.mkdir(parents=True, exist_ok=True)
                _write_durably(marker, MARKER_TEXT.encode())

    def write(self, name: str, content: bytes) -> None:
        """Write a file of a place that is prepared; when this returns it is durable.

        What fails half-way may leave a part of it. Raises PlaceError.
        """
        with self._opening("write", name) as path:
            if self._is_folder:
                self._check_mounted()
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                _write_durably(Path(path), content)
            else:
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._files.pipe_file(path, content)

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """A whole file, or its bytes [start, end). Raises FileMissing, PlaceError."""
        with self._opening("read", name) as path:
            content: bytes = self._files.cat_file(path, start=start, end=end)
        return content

    def look_at(self, name: str) -> "FileVersion":
        """Return what identifies a file that was seen before: one request. Raises FileMissing, PlaceError."""
        with self._opening("read", name) as path:
            facts = self._files.info(path)
        return FileVersion(int(facts["size"]), tuple(str(facts.get(key)) for key in VERSION_KEYS))

    def remove(self, name: str) -> None:
        """Remove a file, whether it is there or not; a folder that it leaves empty goes too."""
        with self._opening("remove", name) as path:
            if self._is_folder:
                self._check_mounted()  # else a file that is there again tomorrow is forgotten
                Path(path).unlink(missing_ok=True)
                _remove_empty(Path(path).parent, Path(self._root))
                return
            try:
                self._files.rm_file(path)
            except FileNotFoundError as error:
                if is_missing_bucket(error):  # of another server, perhaps
                    raise

    def _check_mounted(self) -> None:
        if not self._is_mounted():
            raise OSError(NOT_MOUNTED)

    def _is_mounted(self) -> bool:
        return not self._is_folder or Path(self._root, MARKER).exists()

    def _path(self, name: str) -> str:
        """The path of a file of this place. Raises ValueError for a name that leads out of it, by itself or by a link.

        Names come from the store, and whoever can write a row there must not reach other files of this account.
        """
        if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or "\0" in name:
            raise ValueError("this is not the name of a file in a place of archived steps")
        path = f"{self._root}/{name}"
        if self._is_folder and not Path(path).resolve().is_relative_to(Path(self._root).resolve()):
            raise ValueError("a link leads out of the place of archived steps")
        return path

    @contextmanager
    def _opening(self, verb: str, name: str) -> Iterator[str]:
        """The path of a file. Each package of fsspec has errors of its own, so all of them become ours."""
        self._files.invalidate_cache()  # of listings: another process may have written or removed the file
        try:
            yield self._path(name)
        except Exception as error:
            why = reason(error, self.url)
            if verb == "read" and isinstance(error, FileNotFoundError) and not is_missing_bucket(error):
                if self._is_mounted():
                    raise FileMissing(f"there is no file {self.url}/{name}; it was moved or deleted") from error
                why = NOT_MOUNTED
            raise PlaceError(f"cannot {verb} {self.url}/{name}: {why}") from error


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
    if holds_secret(url):
        _refuse(url, "put the credentials into the environment, not into the URL")
    scheme, _, path = url.partition("://")
    if scheme in VOLATILE:
        _refuse(url, f"{scheme} keeps no files; give a folder, s3://.. or another object store")
    if scheme in ON_DISK and not path.startswith("/"):
        _refuse(url, f"give a folder as {scheme}:///path, or as a path")
    if not path.rstrip("/") or (scheme not in ON_DISK and path.startswith("/")):
        _refuse(url, f"it names no bucket or folder; give {scheme}://NAME/folder")
    return url.rstrip("/")


def path_segment(text: str) -> str:
    """Any text as one segment of a path, readable and without a meaning of its own."""
    return quote(text, safe="").replace(".", "%2E")


def _refuse(url: str, why: str) -> NoReturn:
    raise PlaceError(f"{shown_url(url)!r} is no place for archived steps: {why}")


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    handle = os.open(path.parent, os.O_RDONLY)  # else the name of a new file may be lost with the power
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
        content = self._place.read(self._name, self._at, end)
        self._at += len(content)
        return content
