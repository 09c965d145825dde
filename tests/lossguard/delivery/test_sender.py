"""The thread that delivers: it waits for nobody, survives every failure, and tries again."""

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import lossguard
from lossguard.delivery import sender
from lossguard.delivery.hardware import HardwareSampler
from lossguard.delivery.sender import HEARTBEAT, Sender
from lossguard.run.recording import RecordingRun
from lossguard.spool.archive import Keep
from lossguard.spool.spool import spools_in
from lossguard.vocabulary.errors import LogOnce
from tests.lossguard.collectors import Answer, FakeCollector, serving
from tests.lossguard.delivery.direct import DirectClient, deliver
from tests.lossguard.delivery.runs import online, with_heartbeat
from tests.lossguard.recorded import offline
from tests.ports import free_port
from tests.waiting import eventually, pause


def sending(run: lossguard.Run, collector: FakeCollector, **options: Any) -> Sender:
    """A sender of the present spool of an offline run."""
    assert run.directory is not None
    current = spools_in(run.directory)[0]
    return Sender(run.directory, DirectClient(collector), LogOnce(quiet=True), current=current, **options)


@pytest.mark.slow
def test_a_line_ends_the_wait_for_the_next_look_at_the_spool(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "POLL_SECONDS", 600.0)
    with online(collector, tmp_path) as run:
        for step in range(3):
            run.log(step, loss=1.0)
            assert eventually(lambda: len(collector.rows) == step + 1)  # noqa: B023 - called at once
            pause(2 * sender.PAUSE_SECONDS)  # the sender waits for more


def test_a_line_that_comes_between_the_last_look_and_the_end_is_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, run = FakeCollector(), offline(tmp_path)
    run.log(0, loss=1.0)
    delivering = sending(run, collector)
    looks_after_delivery: list[tuple[int, int]] = []

    def log_and_end() -> None:
        looks_after_delivery.extend(collector.rows)
        if len(looks_after_delivery) == 2:  # the first look since, which found nothing
            run.log(1, loss=2.0)
            delivering._closing.set()

    monkeypatch.setattr(delivering, "_send_hardware", log_and_end)
    delivering.start()
    delivering.join(60)
    assert delivering.delivered
    assert collector.losses(0) == {0: 1.0, 1: 2.0}


def test_a_sender_stays_with_its_session_while_a_later_one_writes_the_same_folder(tmp_path: Path) -> None:
    collector, first = FakeCollector(), offline(tmp_path, run_id="r")
    delivering = sending(first, collector)
    second = offline(tmp_path, run_id="r")  # in the same process, which shares the lock of the folder
    second.log(0, loss=9.0)
    for step in range(2):
        first.log(step, loss=1.0)
        while delivering._advance():
            pass
    delivering._leave(is_done=False)
    assert list(collector.losses(0).values()) == [1.0, 1.0]


def test_the_end_of_a_run_ends_the_wait_for_the_next_look_at_the_spool_whenever_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Appended(threading.Event):
        """Once everything is delivered, the run ends at the moment at which this is cleared."""

        def clear(self) -> None:
            if collector.runs:
                delivering._closing.set()
                self.set()
            super().clear()

    monkeypatch.setattr(sender, "POLL_SECONDS", 600.0)
    collector = FakeCollector()
    delivering = sending(offline(tmp_path), collector, appended=Appended())
    delivering.start()
    delivering.join(60)
    assert delivering.delivered


def test_the_lines_of_a_refused_spool_wake_nobody(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.fault = lambda method, path, body: (422, {"detail": "no"}) if path.endswith("runs") else None
    with online(collector, tmp_path) as run:
        assert isinstance(run, RecordingRun)
        run.log(0, loss=1.0)
        assert run._sender is not None
        delivering = run._sender
        assert eventually(lambda: delivering._delivery is not None and bool(delivering._delivery.refused))
        looks = 0

        def look() -> bool:
            nonlocal looks
            looks += 1
            return False

        monkeypatch.setattr(sender, "PAUSE_SECONDS", 600.0)  # it ends with the run
        delivering._advance = look  # type: ignore[method-assign]
        for step in range(1, 100):
            run.log(step, loss=1.0)
            pause(0.002)
        assert looks <= 1


def test_log_never_waits_for_a_collector_that_is_slow_or_down(collector: FakeCollector, tmp_path: Path) -> None:
    collector.open.clear()  # whoever waits for it waits until the end of the test
    runs = [lossguard.init("project", url=url, directory=tmp_path) for url in (collector.url, "http://127.0.0.1:9")]
    for run in runs:
        seconds = []
        for step in range(100):
            began = time.perf_counter()
            run.log(step, loss=1.0)
            seconds.append(time.perf_counter() - began)
        run.finish(timeout=0.01)
        assert median(seconds) < 0.005
    assert collector.requests == []
    collector.open.set()
    for run in runs:
        run._sender.join(60)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_what_finish_could_not_deliver_is_reported_and_delivered_by_the_next_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "two words"
    run = lossguard.init("project", run_id="r", url="http://127.0.0.1:9", directory=folder)
    run.log(0, loss=1.0)
    run.finish(timeout=0.2)
    assert f"python -m lossguard sync --url http://127.0.0.1:9 '{run.directory}'" in caplog.text
    with serving(FakeCollector()) as collector:
        with online(collector, folder) as run:
            run.log(1, loss=2.0)
        assert collector.rows == {(0, 0): {"loss": 1.0}, (1, 1): {"loss": 2.0}}
        assert collector.finished == ["finished", "finished"]


def test_a_collector_that_comes_back_gets_every_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    run = lossguard.init("project", url=f"http://127.0.0.1:{port}", directory=tmp_path)
    run.log(0, loss=1.0)
    assert eventually(lambda: "steps stay in the spool" in caplog.text)
    with serving(FakeCollector(), port) as collector:
        run.log(1, loss=2.0)
        run.finish()
        assert collector.losses(0) == {0: 1.0, 1: 2.0}


def test_tls_with_a_collector_that_speaks_plain_http_is_reported_with_the_remedy(
    collector: FakeCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = lossguard.init("project", url=collector.url.replace("http:", "https:"), directory=tmp_path)
    assert eventually(lambda: "its address begins with http://" in caplog.text)
    run.finish(timeout=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("status", [500, 503, 429, 408, 404])
def test_what_a_proxy_does_not_pass_on_is_sent_again_and_nothing_else(
    collector: FakeCollector, tmp_path: Path, status: int
) -> None:
    answers: list[Answer] = [(status, {})] * 2
    failures = iter(answers)
    collector.refusal_type = "text/plain"
    collector.fault = lambda method, path, body: next(failures, None) if path.endswith("reports") else None
    with online(collector, tmp_path) as run:
        run.log(0, loss=1.0)
    assert collector.losses(0) == {0: 1.0}
    assert [path for _, path, _ in collector.requests].count("/api/v1/runs") == 1


@pytest.mark.slow
def test_a_collector_that_lost_the_run_gets_everything_again(collector: FakeCollector, tmp_path: Path) -> None:
    with online(collector, tmp_path) as run:
        run.log(0, loss=1.0)
        assert eventually(lambda: bool(collector.rows))
        with collector.lock:
            collector.runs.clear()
            collector.segments.clear()
            collector.rows.clear()
        run.log(1, loss=2.0)
    assert collector.losses(0) == {0: 1.0, 1: 2.0}


def test_a_refused_token_is_reported_once_and_costs_no_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_TOKEN", "lg_revoked")
    with serving(FakeCollector()) as collector:
        collector.fault = lambda method, path, body: (401, {"detail": "no such token"})
        run = online(collector, tmp_path)
        run.log(0, loss=1.0)
        assert eventually(lambda: "refuses the token (401 no such token)" in caplog.text)
        assert caplog.text.count("in the spool") == 1
        run.finish(timeout=0.2)
        collector.fault = lambda method, path, body: None
        online(collector, tmp_path).finish()
        assert collector.losses(0) == {0: 1.0}


TRAINER = """
import sys, time, lossguard
run = lossguard.init("project", run_id="r", url=sys.argv[1], directory=sys.argv[2])
for step in range(100_000):
    run.log(step, loss=float(step))
    print(step, flush=True)
    time.sleep(0.002)
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(lossguard.__file__).parents[1])}


@pytest.mark.slow
@pytest.mark.parametrize("up", [True, False])
def test_kill_9_loses_no_step(collector: FakeCollector, tmp_path: Path, up: bool) -> None:
    url = collector.url if up else "http://127.0.0.1:9"
    command = [sys.executable, "-c", TRAINER, url, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as trainer:
        assert trainer.stdout is not None
        for line in trainer.stdout:
            if int(line) == 100:
                trainer.send_signal(signal.SIGKILL)
                break
        last = int([line, *trainer.stdout.read().splitlines()][-1])
    online(collector, tmp_path).finish()
    assert set(range(last + 1)) <= set(collector.losses(0))


@pytest.mark.slow
def test_the_interpreters_end_delivers_without_finish(collector: FakeCollector, tmp_path: Path) -> None:
    script = "import sys, lossguard\nlossguard.init('p', url=sys.argv[1], directory=sys.argv[2]).log(0, loss=1.0)\n"
    endings = {"": "finished", "raise RuntimeError": "failed", "raise KeyboardInterrupt": "interrupted"}
    for ending, state in endings.items():
        command = [sys.executable, "-c", script + ending, collector.url, str(tmp_path)]
        subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False)
        assert collector.finished[-1] == state
    assert collector.losses(0) == {0: 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_the_end_of_a_process_of_multiprocessing_delivers_and_says_how_it_ended(
    collector: FakeCollector, tmp_path: Path, method: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys, lossguard\n"
        "def train(ending):\n"
        "    lossguard.init('p', url=sys.argv[1], directory=sys.argv[2]).log(0, loss=1.0)\n"
        "    exec(ending)\n"
        "if __name__ == '__main__':\n"
        f"    process = multiprocessing.get_context({method!r}).Process(target=train, args=sys.argv[3:])\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    endings = {
        "": "finished",
        "sys.exit()": "finished",
        "raise RuntimeError": "failed",
        "sys.exit(1)": "failed",  # as torch.multiprocessing.spawn after an exception
        "raise KeyboardInterrupt": "interrupted",
    }
    for ending, state in endings.items():
        command = [sys.executable, str(script), collector.url, str(tmp_path / "spool"), ending]
        subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False)
        assert collector.finished[-1] == state, ending
    assert len(collector.finished) == len(endings)


@pytest.mark.slow
def test_a_run_sends_heartbeats_as_often_as_configured(collector: FakeCollector, tmp_path: Path) -> None:
    times: list[float] = []

    def note_time(method: str, path: str, body: dict[str, Any]) -> None:
        times.append(time.monotonic())

    def three_in_a_row() -> bool:
        return any(third - first < HEARTBEAT for first, third in zip(times, times[2:], strict=False))

    with with_heartbeat(collector, tmp_path, 0.05) as run:
        run.log(0, loss=1.0)
        assert eventually(lambda: bool(collector.rows))
        collector.fault = note_time
        assert eventually(three_in_a_row), "three of the default heartbeats take longer"


@pytest.mark.slow
@pytest.mark.parametrize("keep", [Keep.COMPRESSED, Keep.UNDELIVERED])
def test_a_long_run_is_trimmed_while_it_runs_and_arrives_completely(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Keep
) -> None:
    monkeypatch.setattr("lossguard.run.spooled.FILE_LIMIT", 20_000)
    monkeypatch.setattr("lossguard.delivery.sender.TRIM_SECONDS", 0.05)
    monkeypatch.setenv("LOSSGUARD_SPOOL_KEEP", keep)
    num_steps = 3000
    with online(collector, tmp_path) as run:
        assert run.directory is not None
        for step in range(num_steps):
            run.log(step, loss=float(step))
            if step % 500 == 0:
                run.declare("data_mix", at=step)
        assert eventually(lambda: len(collector.rows) == num_steps)
        assert eventually(lambda: len(spools_in(run.directory)) == 1), "delivered files are archived"  # type: ignore[arg-type]
        run.log(10, loss=-1.0)
    assert collector.losses(0) == {step: float(step) for step in range(num_steps)}
    assert collector.losses(1) == {10: -1.0}
    assert len(collector.events) == 6
    assert len(collector.segments) == 2
    assert collector.finished == ["finished"]
    if keep is Keep.COMPRESSED:
        steps = [record["step"] for _, record in lossguard.read_spools(run.directory) if "metrics" in record]
        assert steps == [*range(num_steps), 10]
    with online(collector, tmp_path) as run:
        assert run.history.num_segments == 2


def test_a_spool_that_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    with lossguard.init("project", run_id="r", mode="offline", directory=tmp_path) as run:
        run.log(0, loss=1.0)
    assert run.directory is not None
    (run.directory / "0000.spool").mkdir()
    collector = FakeCollector()
    sender = deliver(run.directory, collector)
    assert collector.losses(0) == {0: 1.0}
    assert not sender.delivered
    assert sender.problem == f"{run.directory / '0000.spool'} cannot be read (Is a directory)"


@pytest.mark.slow
def test_an_error_of_the_disk_delays_the_spool_that_is_being_written_and_does_not_end_its_delivery(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, real = iter([True, True]), os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        if next(failures, False):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, size, offset)

    monkeypatch.setattr("lossguard.spool.spool_reader.os.pread", pread)
    with online(collector, tmp_path) as run:
        run.log(0, loss=1.0)
    assert collector.losses(0) == {0: 1.0}


class FakeSampler(HardwareSampler):
    """Its hardware is a GPU with one error after the other."""

    def __init__(self, directory: Path) -> None:
        numbers = itertools.count(1)
        super().__init__(
            directory, interval=0.02, newest_step=lambda: 5, read=lambda: {"gpu0": {"ecc_errors": float(next(numbers))}}
        )


def sampled(
    collector: FakeCollector, folder: Path, monkeypatch: pytest.MonkeyPatch, *, heartbeat: float = HEARTBEAT
) -> RecordingRun:
    monkeypatch.setattr("lossguard.run.recording.HardwareSampler", lambda directory, **_: FakeSampler(directory))
    return with_heartbeat(collector, folder, heartbeat, hardware="1")


def samples(collector: FakeCollector) -> list[float]:
    with collector.lock:
        bodies = [body for _, _, body in collector.requests if "hardware" in body]
    assert all(body["steps"] == [] for body in bodies), "samples travel alone: no step is lost with them"
    return [sample["values"]["ecc_errors"] for body in bodies for sample in body["hardware"]]


def test_samples_of_the_hardware_travel_in_reports_of_their_own(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sampled(collector, tmp_path, monkeypatch) as run:
        run.log(0, loss=1.0)
        assert eventually(lambda: len(samples(collector)) >= 2)
    sent = samples(collector)
    assert sent == sorted(set(sent)), "each is sent once"
    assert collector.rows == {(0, 0): {"loss": 1.0}}


@pytest.mark.parametrize("status", [422, 500])
def test_samples_that_a_collector_refuses_hold_up_neither_steps_nor_orders(
    collector: FakeCollector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    collector.fault = lambda method, path, body: (status, {"detail": "too hot"}) if "hardware" in body else None
    with sampled(collector, tmp_path, monkeypatch, heartbeat=0.3) as run:
        for step in range(3):
            run.log(step, loss=1.0)
            assert eventually(lambda: len(samples(collector)) > step)  # noqa: B023
        assert eventually(lambda: len(collector.rows) == 3)
        collector.order(id=1, kind="hold")
        assert eventually(lambda: run.take_order() is not None)
    assert sum("too hot" in record.message for record in caplog.records) == (status == 422)


def test_a_driver_that_does_not_answer_holds_up_no_delivery(
    collector: FakeCollector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(FakeSampler, "look", lambda self: answers.wait(30))
    try:
        with sampled(collector, tmp_path, monkeypatch) as run:
            run.log(0, loss=1.0)
            assert eventually(lambda: len(collector.rows) == 1)
        assert collector.finished == ["finished"]
    finally:
        answers.set()
