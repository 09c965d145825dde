"""Uploaded files take bounded memory, whatever a browser tab sends."""

import asyncio
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3
from starlette.types import Message, Receive, Scope, Send
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from dashboard import streamlit_internals
from dashboard.upload_limits import MAX_FILE_MIB, MAX_STORED_BYTES, MAX_UPLOADS_AT_ONCE, UploadLimits
from tests import virtual_time
from tests.dashboard.serving import Served, dashboard

MIB = 2**20


def upload(limits: UploadLimits, sent: list[Message], length: bytes | None = b"0") -> asyncio.Task[None]:
    headers = [] if length is None else [(b"content-length", length)]
    scope = {"type": "http", "method": "PUT", "path": "/_stcore/upload_file/session/file", "headers": headers}

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("it never arrives")

    return asyncio.ensure_future(limits(scope, receive, send))


async def read_body(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()


def test_uploads_that_never_end_hold_their_places_only_until_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamlit_internals, "num_uploaded_bytes", int)
    limits = UploadLimits(read_body, timeout_seconds=0.05)
    sent: list[Message] = []

    async def scenario() -> None:
        slow = [upload(limits, sent) for _ in range(MAX_UPLOADS_AT_ONCE)]
        await asyncio.sleep(0)
        await upload(limits, sent)
        assert [message["status"] for message in sent if "status" in message] == [429]
        await asyncio.gather(*slow)
        sent.clear()
        await upload(limits, sent)

    virtual_time.run(scenario())
    assert [message["status"] for message in sent if "status" in message] == [408]


@pytest.mark.parametrize(("length", "status"), [(b"99", 408), (b"100", 413), (b"many", 413), (None, 413)])
def test_a_file_that_might_not_fit_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch, length: bytes | None, status: int
) -> None:
    monkeypatch.setattr(streamlit_internals, "num_uploaded_bytes", lambda: MAX_STORED_BYTES - 99)
    sent: list[Message] = []

    async def scenario() -> None:
        await upload(UploadLimits(read_body, timeout_seconds=0.05), sent, length)

    virtual_time.run(scenario())
    assert sent[0]["status"] == status
    assert status == 408 or b"Uploaded files fill the 128 MiB for them; remove one" in sent[1]["body"]


class Tab:
    """A browser tab of the dashboard, which uploads files."""

    def __init__(self, served: Served, session_id: str) -> None:
        self._http, self._url = urllib3.PoolManager(retries=False), f"{served.url}/_stcore/upload_file/{session_id}"
        cookie = self._http.request("GET", f"{served.url}/_stcore/health").headers["Set-Cookie"].partition(";")[0]
        self._headers = {"Cookie": cookie, "X-Xsrftoken": cookie.partition("=")[2]}

    def upload(self, name: str, content: bytes) -> int:
        fields = {"file": ("curve.csv", content)}
        body, kind = urllib3.encode_multipart_formdata(fields)
        headers = {**self._headers, "Content-Type": kind}
        return self._http.request("PUT", f"{self._url}/{name}", body=body, headers=headers).status

    def remove(self, name: str) -> None:
        assert self._http.request("DELETE", f"{self._url}/{name}", headers=self._headers).status == 204


@contextmanager
def tab(served: Served) -> Iterator[Tab]:
    address = served.url.replace("http", "ws", 1) + "/_stcore/stream"
    with connect(address, max_size=None, open_timeout=120) as socket:
        message = BackMsg()
        message.rerun_script.page_name = "lab"
        socket.send(message.SerializeToString())
        while True:
            received = socket.recv(timeout=120)
            assert isinstance(received, bytes)
            parsed = ForwardMsg.FromString(received)
            if parsed.WhichOneof("type") == "new_session":
                yield Tab(served, parsed.new_session.initialize.session_id)
                return


def resident_mib(process: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
def test_a_tab_that_uploads_without_end_is_stopped_at_the_limit(tmp_path: Path) -> None:
    content = b"1,2.5\n" * ((MAX_FILE_MIB * MIB - 4096) // 6)
    with dashboard(f"sqlite:///{tmp_path}/lossguard.db") as served, tab(served) as first:
        before = resident_mib(served.process)
        assert first.upload("too-large", content + bytes(MIB)) == 413
        statuses = [first.upload(f"file-{number}", content) for number in range(12)]
        assert statuses == [204] * 4 + [413] * 8
        assert resident_mib(served.process) - before < 2 * MAX_STORED_BYTES / MIB
        with tab(served) as second:
            assert second.upload("file", content) == 413
            first.remove("file-0")
            assert second.upload("file", content) == 204
