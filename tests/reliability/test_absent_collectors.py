"""One of three collectors behind nginx stands still, dies, or loses its database: reports go on with the others."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
import urllib3

from tests import postgres
from tests.deploy.proxy import in_front_of
from tests.reliability.collector import CollectorProcess, running
from tests.reliability.training import Training, trainings, wait_for_reports
from tests.waiting import wait_for

pytestmark = [pytest.mark.system, pytest.mark.needs("postgresql"), pytest.mark.needs("nginx")]
NUM_RUNS = 4
CHANGES = {"proxy_read_timeout 10s": "proxy_read_timeout 2s", r"hash \$lossguard_run consistent;": ""}
"""To the shipped file: a report waits for 2 s, and every collector gets reports of every run."""


class Link:
    """A port that leads to PostgreSQL's socket. While it is interrupted, nothing passes, and no end is closed."""

    def __init__(self, server: postgres.Server) -> None:
        self._server = f"{server.folder}/.s.PGSQL.5432"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = threading.Event()
        self._open.set()
        port = self._listener.getsockname()[1]
        self.url = f"postgresql://lossguard@127.0.0.1:{port}/postgres"
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def _accept(self) -> None:
        with suppress(OSError):  # the end of the test
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._server)
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with source, suppress(OSError):
            while data := source.recv(65_536):
                self._open.wait()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._open.set()
        self._listener.close()


@contextmanager
def behind_nginx(folder: Path, collectors: list[CollectorProcess]) -> Iterator[tuple[str, urllib3.PoolManager]]:
    """The URL of nginx with the shipped file, and what trusts its certificate."""
    ports = [collector.port for collector in collectors]
    with (
        in_front_of(folder, ports, CHANGES) as front,
        urllib3.PoolManager(maxsize=NUM_RUNS, ca_certs=str(front.certificate), retries=False, timeout=30) as http,
    ):
        yield front.collector, http


def answers(collector: CollectorProcess) -> int:
    """How many reports this collector has answered."""
    return collector.log.read_text().count("/reports")


def wait_until_it_is_used(collector: CollectorProcess) -> None:
    before = answers(collector)
    wait_for(lambda: answers(collector) > before, seconds=60, what="a report that this collector answers")


@pytest.mark.timeout(600)
def test_reports_go_on_when_a_collector_stands_still_or_dies_or_has_no_database_and_it_comes_back(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(postgres.running())
        link = stack.enter_context(closing(Link(server)))
        urls = [server.url(), server.url(), link.url]
        collectors = [CollectorProcess(url, tmp_path / f"{at}.log") for at, url in enumerate(urls)]
        still, dying, apart = collectors
        stack.enter_context(running(*collectors))
        undisturbed = Training([still.url], "undisturbed", size=4)
        undisturbed.start()
        expected = undisturbed.outcome()
        url, http = stack.enter_context(behind_nginx(tmp_path, collectors))
        with trainings([url], num_runs=NUM_RUNS, size=4, http=http) as runs:
            for one in collectors:
                wait_until_it_is_used(one)
            os.kill(still.pid, signal.SIGSTOP)
            wait_for_reports(runs)
            os.kill(still.pid, signal.SIGCONT)
            wait_until_it_is_used(still)
            dying.kill()
            wait_for_reports(runs)
            dying.start()
            wait_until_it_is_used(dying)
            with link.interrupted():
                wait_for_reports(runs)
            wait_until_it_is_used(apart)
        for run in runs:
            assert run.outcome() == expected, run.trainer.run_id
