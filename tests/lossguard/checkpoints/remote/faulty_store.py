"""An object store in this process that fails on demand: `faulty://NAME/..` for fsspec."""

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

Fault = Callable[[str, str], None]
"""Called before each request with its kind (put, pipe, get, cat, find, rm) and its path; it raises, or waits."""


class FaultyStore(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Of all instances, the content is one. A test uses a NAME of its own."""

    protocol = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    faults: ClassVar[dict[str, Fault]] = {}
    """NAME -> what goes wrong there."""
    requests: ClassVar[list[tuple[str, str]]] = []
    """All that were answered, in order."""

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(super()._strip_protocol(str(path).removeprefix("faulty://")))

    def put_file(self, lpath: str, rpath: str, *arguments: Any, **options: Any) -> None:
        self._request("put", rpath)
        super().put_file(lpath, rpath, *arguments, **options)

    def pipe_file(self, path: str, *arguments: Any, **options: Any) -> None:
        self._request("pipe", path)
        super().pipe_file(path, *arguments, **options)

    def get_file(self, rpath: str, lpath: str, *arguments: Any, **options: Any) -> None:
        self._request("get", rpath)
        super().get_file(rpath, lpath, *arguments, **options)

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        self._request("cat", path)
        return super().cat_file(path, *arguments, **options)

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        self._request("find", path)
        return super().find(path, *arguments, **options)

    def rm_file(self, path: str) -> None:
        self._request("rm", path)
        self._rm(path)

    def _request(self, kind: str, path: str) -> None:
        fault = self.faults.get(path.strip("/").partition("/")[0])
        if fault is not None:
            fault(kind, path)
        self.requests.append((kind, path))


fsspec.register_implementation("faulty", FaultyStore, clobber=True)


def files_at(name: str) -> dict[str, bytes]:
    """Path below NAME -> content."""
    found = {path: file.getvalue() for path, file in sorted(FaultyStore.store.items())}
    return {path.removeprefix(f"/{name}/"): content for path, content in found.items() if path.startswith(f"/{name}/")}


def refusing(*kinds: str, after: int = 0, path: str = "") -> Fault:
    """Expired credentials: requests of these kinds whose path has `path` in it fail, all but the first `after`."""
    left = [after]

    def fault(kind: str, at: str) -> None:
        if kind in kinds and path in at:
            left[0] -= 1
            if left[0] < 0:
                raise PermissionError("The provided token has expired.")

    return fault


class Silent:
    """A network that does not answer requests of one kind until `answer` is set."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.answer, self.asked = threading.Event(), threading.Event()

    def __call__(self, kind: str, path: str) -> None:
        if kind == self.kind:
            self.asked.set()
            assert self.answer.wait(60)
