"""`lossguard watch` as a process that is killed, stopped and started again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lossguard.cli.calls import Cli
from tests.lossguard.collectors import FakeCollector
from tests.lossguard.sources.recorded_source import lines
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


def start(path: Path, spools: Path, url: str, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "lossguard", "watch", str(path), "--directory", str(spools), "--url", url, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def append(path: Path, first: int, last: int) -> None:
    with path.open("ab") as file:
        file.writelines(lines([(step, 5 - step / 1000) for step in range(first, last)]))


def num_rows(collector: FakeCollector) -> int:
    with collector.lock:
        return len(collector.rows)


@pytest.mark.system
def test_no_row_is_lost_and_none_is_there_twice_whenever_the_watcher_is_killed(
    collector: FakeCollector, tmp_path: Path
) -> None:
    path, spools = tmp_path / "train.log", tmp_path / "spools"
    append(path, 0, 100)
    for kill in range(1, 4):
        watcher = start(path, spools, collector.url)
        append(path, 100 * kill, 100 * kill + 60)
        wait_for(lambda: num_rows(collector) > 100 * kill - 40, seconds=120, what="rows")  # noqa: B023 - used at once
        append(path, 100 * kill + 60, 100 * kill + 100)
        watcher.kill()
        watcher.communicate()
    watcher = start(path, spools, collector.url, "--until-idle", "0.5")
    out, errors = watcher.communicate(timeout=120)
    assert (watcher.returncode, errors) == (0, "")
    assert "is recorded as run" in out
    assert sorted(step for _, step in collector.rows) == list(range(400))
    assert collector.finished == ["finished"]


def test_an_interrupted_watcher_leaves_a_run_that_can_be_resumed(collector: FakeCollector, tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    append(path, 0, 10)
    watcher = start(path, tmp_path / "spools", collector.url)
    wait_for(lambda: num_rows(collector) == 10, seconds=120, what="rows")
    watcher.send_signal(signal.SIGINT)
    _, errors = watcher.communicate(timeout=120)
    assert (watcher.returncode, errors) == (0, "")
    assert collector.finished == ["interrupted"]


@pytest.mark.system
def test_a_second_watcher_of_a_run_says_who_has_it(collector: FakeCollector, tmp_path: Path, cli: Cli) -> None:
    path, spools = tmp_path / "train.log", tmp_path / "spools"
    append(path, 0, 10)
    watcher = start(path, spools, collector.url)
    wait_for(lambda: num_rows(collector) == 10, seconds=120, what="rows")
    said = cli.fails(2, "watch", str(path), "--directory", str(spools), "--url", collector.url, "--once")
    assert f"is in use by process {watcher.pid} on" in said
    watcher.terminate()
    watcher.communicate(timeout=120)


def test_two_watches_are_two_runs_though_the_environment_names_the_run_of_the_training(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_RUN_ID", "training")
    for name in ("a.log", "b.log"):
        append(tmp_path / name, 0, 10)
        said = cli("watch", str(tmp_path / name), "--directory", str(tmp_path / "spools"), "--once", "--offline")
        assert f"{tmp_path / name} (log) is recorded as run {name.removesuffix('.log')}" in said


def test_what_is_not_delivered_stays_in_the_spool_and_the_exit_code_says_so(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lossguard.sources.watching.FINISH_SECONDS", 0.5)
    path, spools = tmp_path / "train.log", tmp_path / "spools"
    append(path, 0, 10)
    cli.fails(1, "watch", str(path), "--directory", str(spools), "--once", "--url", "http://127.0.0.1:9")
    assert len(list(spools.rglob("*.spool"))) == 1


def test_bad_input_is_one_sentence(tmp_path: Path, cli: Cli) -> None:
    path, spools = tmp_path / "train.log", str(tmp_path / "spools")

    def refused(code: int, *arguments: str) -> str:
        said = cli.fails(code, "watch", *arguments, "--once", "--offline", "--directory", spools)
        assert (said.startswith("lossguard: "), said.count("\n")) == (True, 1)
        return said

    refused(1, str(path))
    (tmp_path / "trainer_state.json").write_bytes(b"\xff\x00 no JSON")
    assert f"{tmp_path} has no row with a step and a number" in refused(1, str(tmp_path))
    append(path, 0, 10)
    refused(2, str(path), "--until-idle", "-1")
    refused(2, str(path), "--format", "xml")
    said = cli.fails(1, "watch", str(path), "--directory", spools, "--once", "--map", "loss=ce")
    assert "--map loss=ce: no such name in the first 10 rows" in said


def test_lines_that_only_a_pattern_describes_are_watched(collector: FakeCollector, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "train.log"
    path.write_text("".join(f"at {step} err={2 - step / 10}, done\n" for step in range(10)))
    command = ["watch", str(path), "--once", "--directory", str(tmp_path / "spools"), "--url", collector.url]
    out = cli(*command, "--pattern", r"at (?P<step>\d+) err=(?P<err>\S+)", "--map", "loss=err")
    assert [metrics["loss"] for metrics in collector.rows.values()] == [2 - step / 10 for step in range(10)]
    assert "err                 loss" in out


@pytest.mark.parametrize("command", ["watch", "import"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--pattern", "step:("], "lossguard: --pattern 'step:(' is no regular expression: missing ), unterminated"),
        (["--pattern", "(?P<step>.)(?P<loss>.)", "--step", "n"], "lossguard: --pattern reads printed lines: leave out"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_one_sentence(
    command: str, options: list[str], sentence: str, tmp_path: Path, cli: Cli
) -> None:
    assert cli.fails(2, command, str(tmp_path), *options).startswith(sentence)
