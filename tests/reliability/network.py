"""An unreliable network between trainer and collector, and how the SDK copes with it.

    python -m tests.reliability.network [--steps 3000] [--seed 0]

A TCP proxy on loopback injects one fault into every connection: it is cut in the middle of a request or of an answer
(also after the collector has stored the report), delayed, sent a few bytes at a time, or never answered; every
connection is cut in the end. A run is logged through the proxy with the SDK. The last line of output is one JSON
object. The exit code is 0 only if every step arrived once, with its value, and no call of `run.log` waited for the
network.
"""

import argparse
import contextlib
import json
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import lossguard
from lossguard.run.recording import RecordingRun
from lossguard.run.settings import Settings
from tests.reliability.collector import CollectorProcess
from tests.waiting import pause

DELAY = 0.4
"""Seconds by which a slow connection delays every chunk: of a request, and of its answer."""
TIMEOUT = 2.0
"""Seconds; the SDK's own 30 s for an answer are too long for a test in which they expire again and again."""


class Fault(StrEnum):
    """The fault that the proxy injects into a connection."""

    NONE = "none"
    CUT_REQUEST = "cut_request"  # somewhere in a request
    CUT_ANSWER = "cut_answer"  # somewhere in an answer: the collector has stored the report
    SLOW = "slow"  # every chunk is delayed
    TRICKLE = "trickle"  # requests arrive a few bytes at a time
    SILENT = "silent"  # requests arrive, answers do not


class Network:
    """A proxy in front of a local port; while it is `reliable`, new connections get no fault."""

    def __init__(self, port: int, *, seed: int = 0, faults: Sequence[Fault] = tuple(Fault)) -> None:
        self._port, self._faults = port, faults
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.reliable = False
        self.injected: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            fault = Fault.NONE if self.reliable else self._random.choice(self._faults)
            self.injected[fault] += 1
            cut_after = self._random.randrange(20, 3_000)
            _Connection(
                client, self._port, fault, cut_after, max_bytes=10**9 if self.reliable else 5 * cut_after
            ).start()


class _Connection:
    def __init__(self, client: socket.socket, port: int, fault: Fault, cut_after: int, max_bytes: int) -> None:
        """`cut_after`: bytes until the fault cuts the connection; `max_bytes`: until any connection is cut."""
        self._client, self._fault, self._cut_after = client, fault, cut_after
        self._max_bytes = cut_after if fault is Fault.CUT_REQUEST else max_bytes
        self._server = socket.create_connection(("127.0.0.1", port))

    def start(self) -> None:
        for forward in (self._forward_requests, self._forward_answers):
            threading.Thread(target=self._run, args=(forward,), daemon=True).start()

    def _run(self, forward: Callable[[], None]) -> None:
        try:
            forward()
        except OSError:
            pass  # the thread of the other direction has closed it
        finally:
            self._cut()

    def _cut(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):  # the other thread closed it first
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in recv; closing alone would not
            end.close()

    def _forward_requests(self) -> None:
        forwarded = 0
        while data := self._client.recv(65_536):
            if forwarded + len(data) > self._max_bytes:
                self._server.sendall(data[: self._max_bytes - forwarded])
                return
            forwarded += len(data)
            if self._fault is Fault.SLOW:
                pause(DELAY)
            if self._fault is Fault.TRICKLE:
                for begin in range(0, len(data), 97):
                    self._server.sendall(data[begin : begin + 97])
                    pause(0.002)
            else:
                self._server.sendall(data)

    def _forward_answers(self) -> None:
        forwarded = 0
        while data := self._server.recv(65_536):
            if self._fault is Fault.SILENT:
                continue
            if self._fault is Fault.CUT_ANSWER and forwarded + len(data) > self._cut_after // 3:
                self._client.sendall(data[: self._cut_after // 3 - forwarded])
                return
            forwarded += len(data)
            if self._fault is Fault.SLOW:
                pause(DELAY)
            self._client.sendall(data)


def log_through(
    network: Network, folder: Path, *, steps: int, run_id: str = "r", interval: float = 0.004
) -> tuple[list[float], float]:
    """Log a run through the network, which is reliable at the end: (losses, seconds of the slowest `run.log`)."""
    noise = random.Random(1)
    losses = [3.0 + noise.gauss(0, 0.02) for _ in range(steps)]
    slowest = 0.0
    registration = {"id": run_id, "project": "network", "capabilities": [], "started_at": time.time()}
    client = lossguard.Client(network.url, timeout=TIMEOUT)
    settings = Settings.read({"LOSSGUARD_HARDWARE": "off"})
    with RecordingRun(registration, folder / run_id, settings, client=client) as run:
        for step, loss in enumerate(losses):
            began = time.perf_counter()
            run.log(step, loss=loss, grad_norm=0.5)
            slowest = max(slowest, time.perf_counter() - began)
            pause(interval)
        network.reliable = True
        run.finish(timeout=60.0)
    return losses, slowest


def stored(url: str, run_id: str = "r") -> tuple[list[float], int]:
    """(losses that the collector has stored, number of steps that it counted)."""
    with lossguard.Client(url) as client:
        run = client.get(f"/runs/{run_id}")
        series = client.get(f"/runs/{run_id}/series?metric=loss&points=20000")
    return series["last"], sum(segment["num_steps"] for segment in run["segments"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        collector = CollectorProcess(f"sqlite:///{name}/store.db", Path(name) / "log")
        collector.start()
        collector.wait_until_up()
        network = Network(collector.port, seed=arguments.seed)
        losses, slowest = log_through(network, Path(name), steps=arguments.steps, interval=0.02)
        arrived, counted = stored(collector.url)
        network.close()
        collector.stop()
    good = arrived == losses and counted == len(losses)
    summary = {"steps": len(losses), "arrived": len(arrived), "counted": counted, "as_logged": arrived == losses}
    print(json.dumps(summary | {"connections": dict(network.injected), "slowest_log_ms": round(1e3 * slowest, 2)}))
    return 0 if good and slowest < DELAY else 1


if __name__ == "__main__":
    sys.exit(main())
