"""Viewers without a browser: what Streamlit's page says to the server, and what the figures' component fetches.

    python -m tests.dashboard.viewer http://127.0.0.1:8501 run=ID 20          20 viewers of a run, until stdin ends

One opens a page, looks again whenever a fragment asks for it, and fetches every figure that it was not told of before.
So many viewers can be had at the cost of their requests alone.
"""

import heapq
import re
import sys
import threading
import time
from dataclasses import dataclass, field

import urllib3
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

FIGURE = re.compile(rb"/lossguard/figures/[0-9a-f]{64}")


@dataclass(slots=True)
class Seen:
    """What viewers together have seen."""

    looks: int = 0
    figures: int = 0
    bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *, looks: int = 0, figures: int = 0, size: int = 0) -> None:
        with self.lock:
            self.looks, self.figures, self.bytes = self.looks + looks, self.figures + figures, self.bytes + size


def view(url: str, page: str, query: str, stop: threading.Event, seen: Seen) -> None:
    """Look at a page until `stop`."""
    known: set[bytes] = set()
    agenda: list[tuple[float, str, float]] = []  # when, fragment, interval
    address = url.replace("http", "ws", 1) + "/_stcore/stream"
    with urllib3.PoolManager() as http, connect(address, max_size=None) as socket:
        _ask(socket, page, query)
        while not stop.is_set():
            try:
                message = socket.recv(timeout=0.05)
            except TimeoutError:
                message = b""
            if isinstance(message, bytes) and message:
                for path in set(FIGURE.findall(message)) - known:
                    known.add(path)
                    body = http.request("GET", url + path.decode(), decode_content=False).data
                    seen.add(figures=1, size=len(body))
                _schedule(agenda, message, seen)
            while agenda and agenda[0][0] <= time.monotonic():
                _, fragment, interval = heapq.heappop(agenda)
                heapq.heappush(agenda, (time.monotonic() + interval, fragment, interval))
                _ask(socket, page, query, fragment)
                seen.add(looks=1)


def _schedule(agenda: list[tuple[float, str, float]], message: bytes, seen: Seen) -> None:
    seen.add(size=len(message))
    told = ForwardMsg.FromString(message)
    if told.WhichOneof("type") == "auto_rerun":
        rerun = told.auto_rerun
        if all(fragment != rerun.fragment_id for _, fragment, _ in agenda):
            heapq.heappush(agenda, (time.monotonic() + rerun.interval, rerun.fragment_id, rerun.interval))


def _ask(socket: ClientConnection, page: str, query: str, fragment: str = "") -> None:
    message = BackMsg()
    message.rerun_script.query_string = query
    message.rerun_script.page_name = page
    message.rerun_script.fragment_id = fragment
    message.rerun_script.is_auto_rerun = bool(fragment)
    message.rerun_script.context_info.timezone = "Europe/Berlin"
    socket.send(message.SerializeToString())


def main(url: str, query: str, count: int) -> None:
    seen, stop = Seen(), threading.Event()
    viewers = [threading.Thread(target=view, args=(url, "run", query, stop, seen), daemon=True) for _ in range(count)]
    for viewer in viewers:
        viewer.start()
    sys.stdin.read()
    stop.set()
    for viewer in viewers:
        viewer.join(timeout=10)
    print(f"{seen.figures} figures, {seen.looks} looks, {seen.bytes / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
