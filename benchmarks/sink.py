"""The smallest substitute for a collector: accepts everything and collects step numbers, in its own process.

with sink() as running: lossguard.init("bench", url=running.url); running.steps()
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3


@dataclass(frozen=True, slots=True)
class Sink:
    url: str

    def steps(self) -> set[int]:
        """All steps that arrived, of any run."""
        answer = urllib3.request("GET", self.url)
        return set(json.loads(answer.data))


@contextmanager
def sink() -> Iterator[Sink]:
    with subprocess.Popen([sys.executable, "-m", "benchmarks.sink"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Sink(process.stdout.readline().strip())
        finally:
            process.terminate()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: two would wait for each other (Nagle, delayed acknowledgement)
    received: set[int] = set()  # noqa: RUF012 - one sink per process

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.received.update(body.get("steps", ()))
        self._answer({"segment": 0, "orders": []})

    do_PUT = do_POST

    def do_GET(self) -> None:
        self._answer(sorted(self.received))

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _answer(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
