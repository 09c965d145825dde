import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import sqlalchemy as sa

from lossguard import Client
from lossguard.__main__ import main
from lossguard.cli.commands import tail
from lossguard.cli.commands.tail import Event
from lossguard.vocabulary.errors import Unreachable
from tests.dashboard.serving import ROOT, serving
from tests.lossguard.cli.small_runs import trained
from tests.ports import free_port


@contextmanager
def tailing(url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "lossguard", "tail", "r", "--interval", "0.1", "--url", url, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("failed", 1), ("interrupted", 1)])
def test_tail_ends_with_the_run_and_says_how_it_ended(
    collector_client: Client, capsys: pytest.CaptureFixture[str], state: str, code: int
) -> None:
    trained(collector_client, "r", 3).finish(state)
    assert main(["tail", "r", "--last", "1"]) == code
    assert capsys.readouterr().out == f"run r is {state}\nstep         2  loss 2.98\n"


def test_while_no_collector_answers_it_is_asked_again_and_one_sentence_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    problems = [Unreachable("gone", retry_after=7.0), Unreachable("gone")]

    def look() -> list[Event]:
        if problems:
            raise problems.pop(0)
        return [Event("state", "it runs")]

    found = tail._patiently(look, argparse.Namespace(interval=2.0, json=False))
    assert ([each.sentence for each in found], waits) == (["it runs"], [7.0, 4.0])
    assert capsys.readouterr().err.splitlines() == [
        "lossguard: gone; it is asked again until it answers",
        "lossguard: the collector answers again",
    ]


def next_event(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return str(json.loads(process.stdout.readline())["event"])


@pytest.mark.slow(seconds=4)
def test_tail_survives_a_collector_that_restarts_and_ctrl_c_ends_it(sqlite_engine: sa.Engine) -> None:
    port = free_port()
    with ExitStack() as stack:
        with serving(sqlite_engine, port=port) as url, Client(url) as client:
            trained(client, "r", 2)
            process = stack.enter_context(tailing(url, "--json"))
            assert [next_event(process) for _ in range(3)] == ["state", "step", "step"]
        assert next_event(process) == "connection"
        with serving(sqlite_engine, port=port) as url, Client(url) as client:
            assert next_event(process) == "connection"
            trained(client, "r", 3)
            assert next_event(process) == "step"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
            assert process.stderr is not None
            assert process.stderr.read() == ""
