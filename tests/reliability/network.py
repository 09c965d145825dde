"""A bad network between trainer and collector, and what the SDK makes of it.

    python -m tests.reliability.network [--steps 3000] [--seed 0]

A TCP proxy on loopback gives every connection a fault of its own: cut in the middle of a request or of an answer (also
after the collector has stored it), slow, by a few bytes at a time, or silent for good; and every one is cut at last. A
run is logged through it with the SDK. The last line of output is one JSON object; exit 0 only if every step arrived
once, with its value, and no call of `run.log` waited for the network.
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
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import lossguard
from lossguard.recording import RecordingRun
from tests.reliability.collector import Collector

SLOW = 0.4
"""Seconds that a slow connection holds back what it carries."""
TIMEOUT = 2.0
"""Seconds; the SDK's own is 30 s for an answer: too long to watch it run out again and again."""


class Fault(StrEnum):
    """What befalls a connection."""

    NONE = "none"
    CUT_REQUEST = "cut_request"  # somewhere in a request
    CUT_ANSWER = "cut_answer"  # somewhere in an answer: the collector has stored what it was sent
    SLOW = "slow"  # every piece is held back
    TRICKLE = "trickle"  # requests arrive by a few bytes at a time
    SILENT = "silent"  # requests arrive, answers do not


class Network:
    """A proxy before a port of this machine; `calm` connections have no fault."""

    def __init__(self, port: int, *, seed: int = 0, faults: Sequence[Fault] = tuple(Fault)) -> None:
        self._port, self._faults = port, faults
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.calm = False
        self.befallen: Counter[str] = Counter()
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
            fault = Fault.NONE if self.calm else self._random.choice(self._faults)
            self.befallen[fault] += 1
            reach = self._random.randrange(20, 3_000)
            _Connection(client, self._port, fault, reach, life=10**9 if self.calm else 5 * reach).start()


class _Connection:
    def __init__(self, client: socket.socket, port: int, fault: Fault, reach: int, life: int) -> None:
        """`reach`: bytes after which a connection that is to be cut is cut; `life`: after which any other is."""
        self._client, self._fault, self._reach = client, fault, reach
        self._life = reach if fault is Fault.CUT_REQUEST else life
        self._server = socket.create_connection(("127.0.0.1", port))

    def start(self) -> None:
        for carry in (self._requests, self._answers):
            threading.Thread(target=self._carry, args=(carry,), daemon=True).start()

    def _carry(self, carry: Any) -> None:
        try:
            carry()
        except OSError:
            pass  # the other direction has cut it
        finally:
            self._cut()

    def _cut(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):  # the other direction was first
                end.shutdown(socket.SHUT_RDWR)  # wakes who waits for it; closing alone would not
            end.close()

    def _requests(self) -> None:
        carried = 0
        while data := self._client.recv(65_536):
            if carried + len(data) > self._life:
                self._server.sendall(data[: self._life - carried])
                return
            carried += len(data)
            if self._fault is Fault.SLOW:
                time.sleep(SLOW)
            if self._fault is Fault.TRICKLE:
                for begin in range(0, len(data), 97):
                    self._server.sendall(data[begin : begin + 97])
                    time.sleep(0.002)
            else:
                self._server.sendall(data)

    def _answers(self) -> None:
        carried = 0
        while data := self._server.recv(65_536):
            if self._fault is Fault.SILENT:
                continue
            if self._fault is Fault.CUT_ANSWER and carried + len(data) > self._reach // 3:
                self._client.sendall(data[: self._reach // 3 - carried])
                return
            carried += len(data)
            if self._fault is Fault.SLOW:
                time.sleep(SLOW)
            self._client.sendall(data)


def log_through(
    network: Network, folder: Path, *, steps: int, run_id: str = "r", pause: float = 0.004
) -> tuple[list[float], float]:
    """Log a run through the network, which is calm at the end: (the losses, seconds of the slowest `run.log`)."""
    noise = random.Random(1)
    losses = [3.0 + noise.gauss(0, 0.02) for _ in range(steps)]
    slowest = 0.0
    registration = {"id": run_id, "project": "network", "capabilities": [], "started_at": time.time()}
    client = lossguard.Client(network.url, timeout=TIMEOUT)
    with RecordingRun(registration=registration, directory=folder / run_id, client=client) as run:
        for step, loss in enumerate(losses):
            began = time.perf_counter()
            run.log(step, loss=loss, grad_norm=0.5)
            slowest = max(slowest, time.perf_counter() - began)
            time.sleep(pause)
        network.calm = True
        run.finish(timeout=60.0)
    return losses, slowest


def stored(url: str, run_id: str = "r") -> tuple[list[float], int]:
    """(the losses that the collector has, the steps that it counted)."""
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
        collector = Collector(f"sqlite:///{name}/store.db", Path(name) / "log")
        collector.start()
        collector.wait_until_up()
        network = Network(collector.port, seed=arguments.seed)
        losses, slowest = log_through(network, Path(name), steps=arguments.steps, pause=0.02)
        arrived, counted = stored(collector.url)
        network.close()
        collector.stop()
    good = arrived == losses and counted == len(losses)
    told = {"steps": len(losses), "arrived": len(arrived), "counted": counted, "as_logged": arrived == losses}
    print(json.dumps(told | {"connections": dict(network.befallen), "slowest_log_ms": round(1e3 * slowest, 2)}))
    return 0 if good and slowest < SLOW else 1


if __name__ == "__main__":
    sys.exit(main())
