"""An S3-compatible server of its own process on loopback, for tests of what is kept in object stores.

The server is moto's. It has an environment of its own (tests/system-packages.sh): its botocore holds python-dateutil
below 3. Clients read the address and the credentials from the environment, as they do at a user's site.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

from tests.ports import free_port
from tests.waiting import wait_for

PROGRAM = shutil.which("moto_server", path=f"{os.environ.get('PATH', '')}:{Path(sys.executable).parent}")
"""None where it is not installed: tests that need it are marked `needs("moto_server")`."""

HAS_CLIENT = any(importlib.util.find_spec(package) for package in ("obstore", "s3fs"))
"""Whether fsspec reaches S3 in this environment."""

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
START_SECONDS = 60.0
NO_LIMIT = 10**9


class Server:
    """A running server. What it holds is in its memory, and is lost when it stops."""

    def __init__(self, folder: str) -> None:
        assert PROGRAM is not None, "moto_server is not installed; run: make system"
        self.address = f"http://127.0.0.1:{free_port()}"
        self._log = Path(folder, "moto.log")
        # The count makes the server able to refuse requests later; until `refuse_requests` it takes all.
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-H", "127.0.0.1", "-p", self.address.rpartition(":")[2]],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": str(NO_LIMIT)},
            )
        self._http = urllib3.PoolManager(retries=False)
        wait_for(self._answers, seconds=START_SECONDS, what="the object store answers")

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which clients (s3fs, obstore, boto) use this server."""
        return {"AWS_ENDPOINT_URL": self.address, "AWS_ALLOW_HTTP": "true", **CREDENTIALS}

    def create_bucket(self, name: str) -> str:
        """Its URL for fsspec."""
        self._send("PUT", f"/{name}")
        return f"s3://{name}"

    def refuse_requests(self, *, after: int = 0) -> None:
        """Take the credentials for expired (403) once `after` more requests are answered."""
        self._send("POST", "/moto-api/reset-auth", str(after).encode())

    def accept_requests(self) -> None:
        """Undo `refuse_requests`."""
        self.refuse_requests(after=NO_LIMIT)

    def stop(self) -> None:
        """End the process: from then on connections are refused."""
        self._process.terminate()
        self._process.wait(60)
        self._http.clear()

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"the object store ended; its output: {self._log.read_text()}"
        try:
            return self._http.request("GET", f"{self.address}/moto-api/", timeout=5).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _send(self, method: str, path: str, body: bytes | None = None) -> None:
        answer = self._http.request(method, self.address + path, body=body, timeout=30)
        assert answer.status == 200, answer.data


@contextmanager
def running() -> Iterator[Server]:
    """A server for the duration of the block."""
    with tempfile.TemporaryDirectory(prefix="lossguard-s3-") as folder:
        server = Server(folder)
        try:
            yield server
        finally:
            server.stop()
