"""The answer of a collector: its body, read while it arrives, or the reason why there is none."""

import io
import socket
import ssl
import threading
from contextlib import suppress
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from lossguard.vocabulary.errors import Unreachable

PIECE = 1 << 20
"""Bytes that are read at once."""
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
        pieces, left = [], size
        try:
            while left and (piece := self._answer.read(PIECE if left < 0 else min(left, PIECE), decode_content=False)):
                pieces.append(piece)
                left -= len(piece) if left > 0 else 0
        except (HTTPError, OSError) as error:
            broke = f"broke after {self.num_bytes:,} bytes ({type(error).__name__})"
            again = "ask again, and if it breaks again, look into the collector's log"
            raise Unreachable(f"the answer of {self._url} {broke}: {again}") from error
        data = b"".join(pieces)
        self.num_bytes += len(data)
        if data:
            self.tail = (self.tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
        return data

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer of bytes: the method that buffers of the standard library call."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


# The head of an answer: the timeout of a socket is one for each piece of it, and there may be any number of these.


class _HeadInTime(HTTPConnection):
    """Ends a connection whose answer has begun in time, but has no whole head after another timeout."""

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        timer = threading.Timer(2 * (self.timeout or 0.0), self._end)
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()
        finally:
            timer.cancel()

    def _end(self) -> None:
        with suppress(OSError):  # it has ended by itself
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # that of TLS is not for other threads


class _TLSHeadInTime(_HeadInTime, HTTPSConnection):
    """A connection with the same limits, with TLS."""


def bound_heads(pool: urllib3.HTTPConnectionPool) -> None:
    """Have the connections of a pool give up heads that come too slowly."""
    pool.ConnectionCls = _TLSHeadInTime if pool.scheme == "https" else _HeadInTime


# Reasons why a collector does not answer, in words.

REASONS = {
    "NewConnectionError": "the connection is refused",
    "NameResolutionError": "its host name is not known",
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "no answer in time",
    "ProtocolError": "the connection was lost",
}
"""By name of the exception of urllib3."""


def reason_of(error: BaseException | None) -> str:
    """A clause about the exception with which a request ended; of an unknown one its name."""
    cause = error.args[0] if error is not None and error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        refused = cause.verify_message.rstrip(".")
        return f"its certificate is refused: {refused}; trust a private authority with SSL_CERT_FILE"
    if isinstance(cause, ssl.SSLError):
        return f"TLS fails: {cause.reason}; if the collector speaks plain HTTP, its address begins with http://"
    name = type(error).__name__
    return REASONS.get(name, name)
