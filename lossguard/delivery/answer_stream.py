"""The body of a collector's answer, read while it arrives."""

import io
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from lossguard.errors import Unreachable

TAIL_BYTES = 16


class AnswerStream(io.RawIOBase):
    """A file that is read from the network. A reader that pauses makes the collector wait, for up to a minute."""

    def __init__(self, answer: urllib3.BaseHTTPResponse, url: str) -> None:
        super().__init__()
        self._answer, self._url = answer, url
        self.num_bytes = 0
        """Read so far."""
        self.tail = b""
        """The last TAIL_BYTES of them."""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer only at the end; -1: all that is left. Raises Unreachable if they do not come,
        or if the connection ends before the answer does."""
        try:
            data = self._answer.read(None if size < 0 else size)
        except (HTTPError, OSError) as error:
            raise Unreachable(
                f"the connection to the collector at {self._url} broke after {self.num_bytes:,} bytes of the answer "
                f"({type(error).__name__}): nothing of it was kept, ask again"
            ) from error
        self.num_bytes += len(data)
        if data:
            self.tail = (self.tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
        return data

    def readinto(self, buffer: Any) -> int:
        """As `read`, into a buffer of bytes: what the buffers of the standard library call."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
