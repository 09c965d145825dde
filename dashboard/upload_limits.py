"""Limits of uploaded files: how large one may be, and how much memory all of them together may take.

Streamlit keeps every uploaded file in memory as long as its browser tab is open, and takes as many as a tab sends.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboard import streamlit_internals

MAX_FILE_MIB = 32
"""Maximum size of a file: a curve of a million rows."""
MAX_FILE_BYTES = MAX_FILE_MIB * 2**20
MAX_STORED_BYTES = 4 * MAX_FILE_BYTES
"""Maximum size of all files in memory; an upload beyond it is answered with 413."""
MAX_UPLOADS_AT_ONCE = 4
"""Uploads in progress; a further one is answered with 429."""
TIMEOUT_SECONDS = 60.0
"""Maximum duration of an upload; a slower one is answered with 408, so that none holds its place for ever."""
ROUTE = "/_stcore/upload_file/"


class UploadLimits:
    """ASGI middleware: refuses an upload with one sentence before it is read."""

    def __init__(self, app: ASGIApp, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._app, self._timeout_seconds = app, timeout_seconds
        self._num_uploads = self._announced_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "PUT" or not scope["path"].startswith(ROUTE):
            await self._app(scope, receive, send)
            return
        if self._num_uploads >= MAX_UPLOADS_AT_ONCE:
            await _refuse(429, "Other files are being uploaded; try again in a minute.")(scope, receive, send)
            return
        size = _announced_bytes(Headers(scope=scope).get("content-length", ""))
        if streamlit_internals.num_uploaded_bytes() + self._announced_bytes + size > MAX_STORED_BYTES:
            sentence = f"Uploaded files fill the {MAX_STORED_BYTES >> 20} MiB for them; remove one, or close its tab."
            await _refuse(413, sentence)(scope, receive, send)
            return
        self._num_uploads += 1
        self._announced_bytes += size
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._app(scope, receive, send)
        except TimeoutError:
            sentence = f"The upload took longer than {self._timeout_seconds:g} s; try again with a smaller file."
            await _refuse(408, sentence)(scope, receive, send)
        finally:
            self._num_uploads -= 1
            self._announced_bytes -= size


def _announced_bytes(content_length: str) -> int:
    """Return the bytes that the request announces. If it does not, or lies, Streamlit stops reading at MAX_FILE_MIB."""
    return min(int(content_length), MAX_FILE_BYTES) if content_length.isdecimal() else MAX_FILE_BYTES


def _refuse(status: int, sentence: str) -> PlainTextResponse:
    return PlainTextResponse(f"{sentence}\n", status_code=status, headers={"Connection": "close"})
