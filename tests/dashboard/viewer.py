"""Simulated viewers: they send what Streamlit's page sends to the server, and fetch figures as the charts do.

    python -m tests.dashboard.viewer http://127.0.0.1:8501 run=ID 20       20 viewers of a run, until stdin closes

Each opens a page, reruns a fragment whenever it is due, and fetches every new figure. Without browsers, many viewers
cost no more than their requests.
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
class Traffic:
    """The traffic of all viewers together."""

    reruns: int = 0
    figures: int = 0
    bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *, reruns: int = 0, figures: int = 0, size: int = 0) -> None:
        with self.lock:
            self.reruns, self.figures, self.bytes = self.reruns + reruns, self.figures + figures, self.bytes + size


def view(url: str, page: str, query: str, stop: threading.Event, traffic: Traffic) -> None:
    """View a page until `stop` is set."""
    known: set[bytes] = set()
    schedule: list[tuple[float, str, float]] = []  # when, fragment, interval
    address = url.replace("http", "ws", 1) + "/_stcore/stream"
    with urllib3.PoolManager() as http, connect(address, max_size=None) as socket:
        _rerun(socket, page, query)
        while not stop.is_set():
            try:
                message = socket.recv(timeout=0.05)
            except TimeoutError:
                message = b""
            if isinstance(message, bytes) and message:
                for path in set(FIGURE.findall(message)) - known:
                    known.add(path)
                    body = http.request("GET", url + path.decode(), decode_content=False).data
                    traffic.add(figures=1, size=len(body))
                _read(message, schedule, traffic)
            while schedule and schedule[0][0] <= time.monotonic():
                _, fragment, interval = heapq.heappop(schedule)
                heapq.heappush(schedule, (time.monotonic() + interval, fragment, interval))
                _rerun(socket, page, query, fragment)
                traffic.add(reruns=1)


def _read(message: bytes, schedule: list[tuple[float, str, float]], traffic: Traffic) -> None:
    traffic.add(size=len(message))
    parsed = ForwardMsg.FromString(message)
    if parsed.WhichOneof("type") == "auto_rerun":
        rerun = parsed.auto_rerun
        if all(fragment != rerun.fragment_id for _, fragment, _ in schedule):
            heapq.heappush(schedule, (time.monotonic() + rerun.interval, rerun.fragment_id, rerun.interval))


def _rerun(socket: ClientConnection, page: str, query: str, fragment: str = "") -> None:
    message = BackMsg()
    message.rerun_script.query_string = query
    message.rerun_script.page_name = page
    message.rerun_script.fragment_id = fragment
    message.rerun_script.is_auto_rerun = bool(fragment)
    message.rerun_script.context_info.timezone = "Europe/Berlin"
    socket.send(message.SerializeToString())


def main(url: str, query: str, count: int) -> None:
    traffic, stop = Traffic(), threading.Event()
    viewers = [
        threading.Thread(target=view, args=(url, "run", query, stop, traffic), daemon=True) for _ in range(count)
    ]
    for viewer in viewers:
        viewer.start()
    sys.stdin.read()
    stop.set()
    for viewer in viewers:
        viewer.join(timeout=10)
    print(f"{traffic.figures} figures, {traffic.reruns} reruns, {traffic.bytes / 1e6:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
