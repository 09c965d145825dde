import argparse
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import sqlalchemy as sa

from lossguard import Client
from lossguard.cli.commands import tail
from lossguard.cli.commands.tail import NON_FINITE, Event, RunEvents
from lossguard.vocabulary.errors import Unreachable
from tests.dashboard.serving import ROOT, serving
from tests.lossguard.cli.calls import Cli
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


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("failed", 1)])
def test_tail_ends_with_the_run_and_says_how_it_ended(
    collector_client: Client, cli: Cli, state: str, code: int
) -> None:
    trained(collector_client, "r", 3).finish(state)
    assert cli.fails(code, "tail", "r", "--last", "1") == f"run r is {state}\nstep         2  loss 2.98\n"


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


@pytest.mark.system
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


def test_a_follower_sees_steps_incidents_interventions_segments_and_the_end_once_and_in_order(
    collector_client: Client,
) -> None:
    run = trained(collector_client, "r", 100)
    follower = RunEvents(collector_client, run.get(), ("loss",), last=2)
    first = follower.look()
    assert [each.kind for each in first] == ["state", "step", "step"]
    assert [each.facts["step"] for each in first[1:]] == [98, 99]
    assert follower.look() == []
    run.report(100, [float("nan")])
    incident, intervention, step = follower.look()
    assert incident.sentence == "incident 1: nonfinite, treated (loss, onset step 100)"
    assert intervention.sentence == "intervention 1: rollback to 10, ordered"
    assert step.facts == {"step": 100, "segment": 0, "metrics": {"loss": NON_FINITE}}
    order = run.get()["orders"][0]
    run.open(order["rewind_to"], "rollback", order["id"])
    run.report(order["rewind_to"], [2.5, 2.5])
    after = follower.look()
    assert [each.sentence for each in after if each.kind != "step"] == [
        "intervention 1: rollback to 10, applied",
        "segment 1 from step 10: rollback",
    ]
    assert [each.facts["step"] for each in after if each.kind == "step"] == [10, 11]
    run.finish()
    assert follower.look()[-1] == Event("state", "run r is finished", {"run": "r", "state": "finished"})


def test_the_steps_that_a_rollback_discards_between_two_looks_are_seen_too(collector_client: Client) -> None:
    run = trained(collector_client, "r", 100)
    follower = RunEvents(collector_client, run.get(), (), last=0)
    follower.look()
    run.report(100, [2.0, 2.0, 2.0])
    run.open(50, "rewind")
    run.report(50, [2.0])
    seen = [(each.facts["segment"], each.facts["step"]) for each in follower.look() if each.kind == "step"]
    assert seen == [(0, 100), (0, 101), (0, 102), (1, 50)]


def test_what_was_over_before_is_no_news(collector_client: Client) -> None:
    run = trained(collector_client, "r", 100, policy={"mode": "observe"})
    run.report(100, [math.nan])
    run.report(101, [2.0] * 60)
    (incident,) = run.get("/incidents")
    assert incident["state"] == "closed"
    follower = RunEvents(collector_client, run.get(), ("loss",), last=0)
    assert [each.kind for each in follower.look()] == ["state"]
