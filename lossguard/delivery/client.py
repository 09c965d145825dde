"""The collector as seen from the sender: one keep-alive connection, errors sorted by what to do about them."""

import json
import ssl
from typing import Any

import urllib3

from lossguard.errors import Rejected, Unauthorised, UnknownRun, Unreachable
from lossguard.protocol import API, SPOOL_HEADER

Body = dict[str, Any]
TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)
RETRY_UNAUTHORISED = 30.0
"""Seconds."""


class Collector:
    def __init__(self, url: str, token: str | None = None) -> None:
        """`url` is the base address, as `Settings` checked it. Connects at the first request."""
        self.url = url
        address = urllib3.util.parse_url(url)
        self._pool = urllib3.connection_from_url(url, maxsize=1, timeout=TIMEOUT, retries=False)
        self._base = (address.path or "").rstrip("/") + API
        self._headers = {"content-type": "application/json", "user-agent": "lossguard"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    def send(self, method: str, path: str, body: Body, *, left: int | None = None) -> Body:
        """Return the answer's JSON object. Raises Unreachable, Unauthorised, UnknownRun or Rejected.

        `left` tells the collector how many bytes of the spool wait behind this request.
        """
        data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        headers = self._headers if left is None else self._headers | {SPOOL_HEADER: str(left)}
        try:
            answer = self._pool.urlopen(method, self._base + path, body=data, headers=headers, redirect=False)
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            raise Unreachable(f"no collector answers at {self.url} ({_why(problem)})") from problem
        if not 200 <= answer.status < 300:
            raise self._error(answer)
        try:
            decoded = json.loads(answer.data)
        except ValueError:
            decoded = None
        if not isinstance(decoded, dict):
            raise Unreachable(f"what answers at {self.url} is not a Lossguard collector")
        return decoded

    def close(self) -> None:
        self._pool.close()

    def _error(self, answer: urllib3.BaseHTTPResponse) -> Exception:
        status, detail = answer.status, _detail(answer.data)
        if status in (401, 403):
            message = f"the collector at {self.url} refuses the token ({status} {detail})"
            return Unauthorised(message, retry_after=RETRY_UNAUTHORISED)
        if status == 404:
            return UnknownRun(f"the collector at {self.url} answers 404 {detail}")
        by_collector = answer.headers.get("content-type", "").startswith("application/problem+json")
        if 400 <= status < 500 and status not in (408, 429) and not by_collector:
            return Unreachable(f"what answers at {self.url} ({status}) is not a Lossguard collector")
        if 400 <= status < 500 and status not in (408, 429):
            return Rejected(f"{status} {detail}")
        wait = answer.headers.get("retry-after", "")
        return Unreachable(
            f"the collector at {self.url} answers {status}", retry_after=float(wait) if wait.isdecimal() else 0.0
        )


def _why(problem: Exception) -> str:
    cause = problem.args[0] if problem.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        refused = cause.verify_message.rstrip(".")
        return f"its certificate is refused: {refused}; that of a private authority is named with SSL_CERT_FILE"
    if isinstance(cause, ssl.SSLError):
        return f"TLS fails: {cause.reason}; where the collector speaks plain HTTP, its address begins with http://"
    return type(problem).__name__


def _detail(data: bytes) -> str:
    """The sentence in a problem+json body, with where the trouble is, else the beginning of whatever came."""
    try:
        problem = json.loads(data)
        where = ".".join(str(part) for part in problem.get("where") or ())
        return f"{problem.get('detail') or problem.get('title')}" + (f" (at {where})" if where else "")
    except (ValueError, AttributeError, TypeError):
        return data[:200].decode(errors="replace")
