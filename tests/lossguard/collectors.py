"""A tiny real collector on loopback: keeps what it is sent, numbers segments, drops duplicates, hands out orders."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lossguard.spool.writer import WRITER_HEADER, Writer
from lossguard.vocabulary.protocol import SPOOL_HEADER, WIRE_HEADER, WIRE_VERSION
from tests.waiting import pause

Answer = tuple[int, dict[str, Any]]


class FakeCollector:
    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.segments: list[dict[str, Any]] = []
        self.rows: dict[tuple[int, int], dict[str, Any]] = {}
        self.events: dict[str, dict[str, Any]] = {}
        self.restorable: list[int] = []
        self.tiers: list[dict[str, Any]] | None = None
        self.question: dict[str, Any] | None = None
        """What it asks before a person approves a rollback."""
        self.preflights: list[dict[str, Any]] = []
        self.notices: Any = None
        """What the trainer is to log."""
        self.wire = WIRE_VERSION
        """The version of the wire that it speaks."""
        self.orders: dict[int, dict[str, Any]] = {}
        self.answers: dict[int, dict[str, Any]] = {}
        self.finished: list[str] = []
        self.writers: list[tuple[str, str | None]] = []
        """The path of each request, and which process says that it sent it."""
        self.spool_bytes: list[int] = []
        """What waits behind each report, as the SDK says."""
        self.delay = 0.0
        """Seconds that each answer takes."""
        self.open = threading.Event()
        """While it is not set, nothing is answered."""
        self.open.set()
        self.fault: Callable[[str, str, dict[str, Any]], Answer | None] = lambda method, path, body: None
        """Receives each request first; an answer that it returns replaces the normal one."""
        self.refusal_type = "application/problem+json"
        """Content type of refusals; that of a proxy is another."""
        self.url = ""
        self.lock = threading.Lock()

    def handle(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        self.open.wait(60)
        pause(self.delay)
        with self.lock:
            self.requests.append((method, path, body))
            return self.fault(method, path, body) or self._handle(path.removeprefix("/api/v1/").split("/"), body)

    def sessions(self, ending: str) -> list[str]:
        """The sessions that sent the requests to paths with this ending."""
        return [Writer.from_header(str(header)).session for path, header in self.writers if path.endswith(ending)]

    def losses(self, segment: int) -> dict[int, Any]:
        with self.lock:
            return {step: row.get("loss") for (number, step), row in self.rows.items() if number == segment}

    def order(self, **order: Any) -> None:
        blank = dict.fromkeys(("incident", "rewind_to", "skip_from", "skip_to", "lr_scale"))
        with self.lock:
            self.orders[order["id"]] = {**blank, "key": f"k{order['id']}", "reason": "a test asked", **order}

    def _handle(self, path: list[str], body: dict[str, Any]) -> Answer:
        match path:
            case ["", "healthz"]:
                return 200, {}
            case ["runs"]:
                self.runs[body["id"]] = body
                return 201, {"id": body["id"], "state": "running", "policy": {}}
            case ["orders", number]:
                self.answers[int(number)] = body
                self.orders.pop(int(number), None)
                return 200, {"id": int(number)}
            case ["runs", run, *_] if run not in self.runs:
                return 404, {"title": "Not Found", "detail": f"no run {run}"}
            case ["runs", _, "segments"]:
                keys = [segment["key"] for segment in self.segments]
                if body["key"] not in keys:
                    self.segments.append(body)
                    keys.append(body["key"])
                return 200, {"segment": keys.index(body["key"]), "parent": None, "fork_step": body["fork_step"]}
            case ["runs", _, "reports"]:
                return self._report(body)
            case ["runs", _, "finish"]:
                self.finished.append(body["state"])
                return 200, {}
        return 404, {"title": "Not Found", "detail": "no such route"}

    def _report(self, body: dict[str, Any]) -> Answer:
        accepted = 0
        for position, step in enumerate(body["steps"]):
            row = {name: column[position] for name, column in body["metrics"].items() if column[position] is not None}
            accepted += (body["segment"], step) not in self.rows
            self.rows.setdefault((body["segment"], step), row)
        self.events |= {event["key"]: event for event in body.get("events", [])}
        if body.get("restorable_steps") is not None:
            self.restorable, self.tiers = body["restorable_steps"], body.get("restorable_tiers")
        if body.get("preflight") is not None:
            self.preflights.append(body["preflight"])
        orders = list(self.orders.values())
        answer = {"accepted": accepted, "duplicates": len(body["steps"]) - accepted, "orders": orders}
        answer |= {} if self.notices is None else {"notices": self.notices}
        return 200, answer if self.question is None else answer | {"preflight": self.question}


@contextmanager
def serving(collector: FakeCollector, port: int = 0) -> Iterator[FakeCollector]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}"
            if SPOOL_HEADER in self.headers:
                collector.spool_bytes.append(int(self.headers[SPOOL_HEADER]))
            collector.writers.append((self.path, self.headers.get(WRITER_HEADER)))
            status, answer = collector.handle(self.command, self.path, json.loads(data))
            encoded = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json" if status < 400 else collector.refusal_type)
            self.send_header("content-length", str(len(encoded)))
            self.send_header(WIRE_HEADER, collector.wire)
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, format: str, *args: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
