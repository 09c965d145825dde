"""A collector's HTTP API: one keep-alive connection, JSON in both directions, and errors sorted by what to do next."""

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationValueError, NewConnectionError, SSLError

from lossguard.client.answers import PIECE, AnswerStream, bound_heads, reason_of
from lossguard.client.endpoint import checked_token, collector_url
from lossguard.vocabulary.errors import CollectorError, Conflict, NotFound, Rejected, Unauthorised, Unreachable
from lossguard.vocabulary.protocol import API, WIRE_HEADER, WIRE_VERSION

if TYPE_CHECKING:
    from lossguard.client.stored_run import StoredRun

CONNECT_TIMEOUT = 5.0
"""Seconds, at most."""
RETRY_UNAUTHORISED = 30.0
"""Seconds to wait before a refused token is tried again."""
NOT_SENT = (NewConnectionError, ConnectTimeoutError, SSLError, LocationValueError, UnicodeError)
"""Errors that occur before the request is sent."""
TOKEN_FIELD = "header.authorization"
"""Place of a refused token, which the sentence names already."""
NEXT = re.compile(r'<(\?[^>]*)>;\s*rel="?next"?')
"""The next page in a Link header."""
MAX_BODY = 32 << 20
"""Maximum bytes of an answer that is read as a whole; a trainer gets a few thousand."""
MAX_VALUES = 2_000_000
"""Maximum values in it: they take up to 270 MB of memory."""
MAX_DEPTH = 64
"""Maximum levels of nesting; a collector stores 16."""
MIN_RATE = 128 << 10
"""Bytes per second below which an answer is given up, after the client's timeout."""
PAGE = 100
"""Runs that are asked for at once."""
MAX_PAGES = 10_000
"""Maximum pages of a list: a million runs."""
MAX_WAIT = 3600.0
"""Maximum seconds for which a collector may ask to wait."""
MAX_DETAIL = 1_000
"""Maximum characters of a reason that are shown."""
TRY_AGAIN = (408, 429)
"""Client errors that may pass."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_AS_LISTS = bytes.maketrans(b"{}", b"[]")
_OTHER_BYTES = bytes(set(range(256)) - set(b"[]{}"))


class Client:
    """Requests to a collector.

        client = lossguard.Client("http://127.0.0.1:8000", token)
        client.runs(project="gpt-small")                # a pandas frame, or a dict of columns without pandas
        client.run("RUN").frame(["loss"])
        client.get("/runs/RUN")["state"]                # any other route, as JSON

    Paths are relative to /api/v1; the collector describes them at /docs. A request that fails raises one of the
    children of `CollectorError`: `Unreachable`, `Unauthorised`, `NotFound`, `Conflict` or `Rejected`.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30.0) -> None:
        """`url` is the collector's base address, `timeout` the seconds to wait for an answer.

        Connects at the first request. Raises ConfigurationError when `url` is not an HTTP address, or the token
        cannot be one.
        """
        self.url = collector_url("url", url)
        address = urllib3.util.parse_url(self.url)
        limits = urllib3.Timeout(connect=min(timeout, CONNECT_TIMEOUT), read=timeout)
        self._timeout = timeout
        self._pool = urllib3.connection_from_url(self.url, maxsize=1, timeout=limits, retries=False)
        bound_heads(self._pool)
        self._path = (address.path or "").rstrip("/")
        self._headers = {"user-agent": "lossguard", WIRE_HEADER.lower(): WIRE_VERSION}
        if token:
            self._headers["authorization"] = f"Bearer {checked_token('token', token)}"

    def get(self, path: str) -> Any:
        """The JSON value at `path`, such as "/runs" or "/runs/ID/series?metric=loss"."""
        return self.request("GET", path)

    def pages(self, path: str) -> Iterator[list[Any]]:
        """The lists at `path`, such as "/runs?limit=500", one page after another, each when it is asked for.

        Raises Rejected where the collector has one object instead.
        """
        asked = path
        for _ in range(MAX_PAGES):
            answer, body = self._send("GET", API + asked, None, self._headers)
            following = NEXT.search(answer.headers.get("link", ""))
            page = self._decoded(answer.status, body, (dict, list))
            if isinstance(page, dict):
                raise Rejected(f"{path} is one object and no list, so it has no pages: read it with get({path!r})")
            yield page
            if following is None:
                return
            asked = asked.partition("?")[0] + following[1]  # a link is relative to its page (RFC 8288)
        raise Rejected(f"{path} has more than {MAX_PAGES:,} pages: ask for less")

    def run(self, run_id: str) -> "StoredRun":
        """A run as the collector has it: its steps, incidents and costs as frames. Asks nothing yet."""
        from lossguard.client.stored_run import StoredRun  # what a trainer's process never needs

        return StoredRun(self, run_id)

    def runs(
        self,
        *,
        project: str | None = None,
        state: str | None = None,
        tags: Sequence[str] = (),
        search: str | None = None,
        since: float | None = None,
        limit: int | None = None,
    ) -> Any:
        """Runs, the newest first: one row per run. They are read in pages; without `limit`, all of them.

        `state`: such as "running". `tags`: only runs with all of these. `search`: words and conditions as on the page
        of runs, such as "lr>1e-3 loss<2.5". `since`: only runs that reported since then (unix seconds).
        """
        from lossguard.client import frames, tables

        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit} must be a number of runs, from 1")
        if isinstance(tags, str):
            raise ValueError(f"tags={tags!r} must be a list of tags, as in [{tags!r}]")
        given = {"project": project, "state": state, "search": search, "since": since}
        query: list[tuple[str, Any]] = [(name, value) for name, value in given.items() if value is not None]
        query += [*(("tag", tag) for tag in tags), ("limit", min(limit or PAGE, PAGE))]
        found = chain.from_iterable(self.pages(f"/runs?{urlencode(query)}"))
        return frames.table_of(tables.RUNS, list(islice(found, limit)))

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Send `body` as JSON and return the decoded answer: always a dict when there is a body; None for status 204.

        NaN and infinity must be encoded already, as the protocol writes them.
        """
        sent = {**self._headers, **(headers or {})}
        data = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
            sent["content-type"] = "application/json"
        answer, text = self._send(method, API + path, data, sent)
        if answer.status == 204:
            return None
        return self._decoded(answer.status, text, dict if data else (dict, list))

    @contextmanager
    def stream(self, path: str) -> Iterator[AnswerStream]:
        """The body at `path` as a file that is read while it arrives: not in memory as a whole."""
        answer, _ = self._send("GET", API + path, None, self._headers, is_stream=True)
        try:
            yield AnswerStream(answer, self.url)
        finally:
            answer.close()  # the connection too, unless the body was read to its end
            answer.release_conn()

    def ping(self) -> None:
        """Ask whether the collector is up; no token is needed. Raises CollectorError when it is not."""
        self._send("GET", "/healthz", None, self._headers)

    def download(self, path: str, file: BinaryIO) -> int:
        """Write the body at `path` into `file` while it arrives; returns its bytes. It is never in memory as a whole.

        Raises Unreachable when the connection breaks: what `file` has then is the beginning.
        """
        with self.stream(path) as answer:
            shutil.copyfileobj(answer, file, PIECE)
            return answer.num_bytes

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _send(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str], *, is_stream: bool = False
    ) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        """Return the answer and its body, which is left to the caller if it `is_stream` and not refused."""
        try:
            answer = self._pool.urlopen(
                method, self._path + path, body=data, headers=headers, redirect=False, preload_content=False
            )
            try:
                if answer.headers.get("content-encoding", "identity") != "identity":  # it may become any size
                    raise TooLarge("sends a compressed answer, for which nobody has asked")
                is_refused = not 200 <= answer.status < 300
                body = b"" if is_stream and not is_refused else read_body(answer, self._timeout)
            except BaseException:
                answer.close()
                raise
        except TooLarge as problem:
            raise Unreachable(f"the server at {self.url} {problem}", status=answer.status) from None
        except (HTTPError, OSError, UnicodeError) as error:
            raise Unreachable(
                f"no collector answers at {self.url} ({reason_of(error)})",
                may_have_arrived=not isinstance(error, NOT_SENT),
            ) from error
        if (version := answer.headers.get(WIRE_HEADER, WIRE_VERSION)) != WIRE_VERSION:
            answer.close()
            raise Unreachable(
                f"{self.url} speaks version {version[:20]} of the wire, this release {WIRE_VERSION}: upgrade the older",
                status=answer.status,
            )
        if is_refused:
            raise self._error(answer, body)
        return answer, body

    def _decoded(self, status: int, body: bytes, kinds: type | tuple[type, ...]) -> Any:
        try:
            value = parsed(body)
        except TooLarge as problem:
            raise Unreachable(f"the server at {self.url} {problem}", status=status) from None
        except ValueError:
            value = None
        if not isinstance(value, kinds):
            raise self._not_a_collector(status)
        return value

    def _error(self, answer: urllib3.BaseHTTPResponse, body: bytes) -> CollectorError:
        status, (detail, field) = answer.status, _problem(body)
        facts: dict[str, Any] = {"status": status, "detail": detail}
        reason = f"{status} {detail or body[:200].decode(errors='replace')}".rstrip()
        reason += f" (at {field})" if field not in ("", TOKEN_FIELD) else ""
        if status in (401, 403):
            sentence = f"the collector at {self.url} refuses the token ({reason})"
            if status == 401 and "authorization" not in self._headers:
                sentence = f"the collector at {self.url} asks for a token, and none is given (LOSSGUARD_TOKEN)"
            return Unauthorised(sentence, retry_after=RETRY_UNAUTHORISED, **facts)
        if status == 404 and _is_problem(answer):  # a proxy's own would have a run delivered again
            return NotFound(f"the collector at {self.url} answers {reason}", **facts)
        if not 400 <= status < 500 or status in TRY_AGAIN:
            wait = answer.headers.get("retry-after", "")
            seconds = min(float(wait), MAX_WAIT) if wait.isdecimal() else 0.0
            why = f": {detail}" if detail else ""
            return Unreachable(f"the collector at {self.url} answers {status}{why}", retry_after=seconds, **facts)
        if status != 413 and not _is_problem(answer):  # a proxy, too, may have a limit: a smaller report may pass
            return self._not_a_collector(status)
        return (Conflict if status == 409 else Rejected)(reason, **facts)

    def _not_a_collector(self, status: int) -> Unreachable:
        return Unreachable(f"the server at {self.url} ({status}) is not a Lossguard collector", status=status)


# The body of an answer, bounded before it becomes anything in memory.


class TooLarge(ValueError):
    """An answer is larger than any that a collector gives: the end of a sentence."""


def read_body(answer: urllib3.BaseHTTPResponse, timeout: float) -> bytes:
    """Return the body of an answer. Raises TooLarge, and TimeoutError, HTTPError or OSError if it does not come."""
    body, began = bytearray(), time.monotonic()
    while piece := answer.read1(PIECE, decode_content=False):
        body += piece
        if len(body) > MAX_BODY:
            raise TooLarge(f"sends more than {MAX_BODY >> 20} MiB in one answer")
        if time.monotonic() - began > timeout + len(body) / MIN_RATE:
            raise TimeoutError("the answer comes too slowly")
    answer.release_conn()
    return bytes(body)


def parsed(body: bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError for any other, and TooLarge beyond MAX_VALUES and MAX_DEPTH.

    Both are counted before anything is parsed: what is parsed takes many times the memory of its text.
    """
    num_brackets = body.count(b"[") + body.count(b"{")
    if body.count(b",") + num_brackets > MAX_VALUES:
        raise TooLarge(f"sends more than {MAX_VALUES:,} values in one answer")
    if num_brackets > MAX_DEPTH:
        brackets = _STRING.sub(b"", body).translate(_AS_LISTS, _OTHER_BYTES)
        for _ in range(MAX_DEPTH):  # the innermost level goes each time
            brackets = brackets.replace(b"[]", b"")
        if brackets:
            raise TooLarge(f"sends JSON of more than {MAX_DEPTH} levels")
    return json.loads(body)


# Headers and reasons.


def _is_problem(answer: urllib3.BaseHTTPResponse) -> bool:
    return answer.headers.get("content-type", "").startswith("application/problem+json")


def _problem(data: bytes) -> tuple[str, str]:
    """(detail, field) of a problem+json body, empty where it has none; ("", "") for any other body."""
    try:
        problem = parsed(data)
        field = ".".join(str(part) for part in problem.get("where") or ())
        return str(problem.get("detail") or problem.get("title") or "")[:MAX_DETAIL], field[:MAX_DETAIL]
    except (ValueError, AttributeError, TypeError):
        return "", ""
