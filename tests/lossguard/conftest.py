import errno
import fcntl
import os
from collections.abc import Iterator

import pytest

from tests.lossguard.collectors import FakeCollector, serving


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "TOKEN", "DIR", "MODE", "RUN_ID"):
        monkeypatch.delenv(f"LOSSGUARD_{name}", raising=False)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with serving(FakeCollector()) as running:
        yield running


@pytest.fixture(params=["local", "NFSv4"])
def file_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The locks of a local disk, and those of NFSv4: shared ones need a readable file, exclusive ones a writable."""
    lock = fcntl.flock

    def of_nfs(file: int, operation: int) -> None:
        missing = os.O_WRONLY if operation & fcntl.LOCK_SH else os.O_RDONLY
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == missing:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        lock(file, operation)

    if request.param == "NFSv4":
        monkeypatch.setattr(fcntl, "flock", of_nfs)
