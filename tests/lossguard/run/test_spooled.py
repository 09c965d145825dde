import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lossguard
from lossguard import SegmentReason
from lossguard.run.spooled import UNANNOUNCED
from lossguard.vocabulary.protocol import SKIPPED_SAMPLE_RETURNED
from lossguard.vocabulary.source_facts import SourceFacts
from lossguard.vocabulary.states import Tier
from lossguard.vocabulary.wire import RestorableTier
from tests.lossguard.collectors import FakeCollector
from tests.lossguard.device_tensor import DeviceTensor
from tests.lossguard.recorded import offline, records, steps
from tests.lossguard.scripted import rollback


def test_a_step_is_in_the_spool_when_log_returns_with_non_finite_values_as_the_protocol_writes_them(
    tmp_path: Path,
) -> None:
    with offline(tmp_path) as run:
        run.log(0, loss=1.5, tokens=4096, lr=1e-3)
        assert steps(run) == [(0, {"loss": 1.5, "tokens": 4096, "lr": 1e-3})]
        run.log(1, loss=math.nan, grad_norm=math.inf, log_z=-math.inf, lr=1.0)
        assert steps(run)[1][1] == {"loss": "NaN", "grad_norm": "Infinity", "log_z": "-Infinity", "lr": 1.0}


def test_a_bad_value_costs_itself_and_not_the_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with offline(tmp_path) as run:
        for step in range(3):
            run.log(step, loss=1.0, note="a string", absent=None)
    assert steps(run) == [(step, {"loss": 1.0}) for step in range(3)]
    assert caplog.text.count("note was not recorded") == 1


def test_nothing_that_is_logged_raises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with offline(tmp_path) as run:
        run.log("first", loss=1.0)  # type: ignore[arg-type]
        run.log(-1, loss=1.0)
        run.log(2**53, loss=1.0)
        run.declare("data_mix", weird=object())
        run.log(0, loss=1.0)
    run.log(1, loss=1.0)
    run.finish()
    assert [step for step, _ in steps(run)] == [0]
    assert "step -1 is below 0" in caplog.text


def test_durations_are_reported_once_with_the_next_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with offline(tmp_path) as run:
        run.add_seconds("evaluation_seconds", 2.0)
        run.add_seconds("evaluation_seconds", np.float64(1.5))
        run.add_seconds("checkpoint_seconds", 4.0)
        run.add_seconds("checkpoint_seconds", "long")  # type: ignore[arg-type]
        run.log(0, loss=1.0, checkpoint_seconds=3.0)
        run.log(1, loss=1.0)
    assert steps(run) == [(0, {"evaluation_seconds": 3.5, "checkpoint_seconds": 3.0, "loss": 1.0}), (1, {"loss": 1.0})]
    assert "run.add_seconds was ignored" in caplog.text


def test_a_step_not_above_the_last_and_a_resume_begin_a_new_segment(tmp_path: Path) -> None:
    for logged in ((0, 1, 2, 1, 2), (3,)):
        with offline(tmp_path, run_id="r") as run:
            for step in logged:
                run.log(step, loss=1.0)
    segments = [record for record in records(run) if "segment" in record]
    opened = [(each["fork_step"], each["reason"]) for each in segments]
    assert opened == [(0, "start"), (1, "rewind"), (3, "resume")]


def test_a_declared_event_or_pause_is_in_the_spool_at_once_and_takes_effect_at_the_next_step(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.log(4, loss=1.0)
        run.declare("learning_rate", lr=math.inf)
        run.expect(next_report_in=90)
        events = [(each["event"], each["step"], each["details"]) for each in records(run) if "event" in each]
    assert events == [("learning_rate", 5, {"lr": "Infinity"}), ("expect", 5, {"next_report_in": 90.0})]


def test_a_source_is_declared_and_what_says_nothing_of_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with offline(tmp_path) as run:
        run.declare("source", stride=10.0, averaged=True)
        assert caplog.text == ""
        run.declare("source", stride="ten", smooth=0.9)
        run.log(0, loss=1.0)
    assert (
        "declare: stride='ten', smooth=0.9 says nothing of a source; it has stride, averaged, smoothing" in caplog.text
    )
    events = [record["details"] for record in records(run) if "event" in record]
    assert SourceFacts.from_details(events[0]) == SourceFacts(stride=10, averaged=True)


def test_a_row_of_an_earlier_time_keeps_it_and_its_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with offline(tmp_path) as run:
        run.log_row(5, {"step": 1.0, "self": 2.0}, 100.0)
        run.log_event("note", {"self": 1}, 101.0)
        run.log_row(6, {"loss": 1.0}, -1.0)
    assert steps(run) == [(5, {"step": 1.0, "self": 2.0})]
    times = [record["time"] for record in records(run) if record.keys() & {"segment", "metrics", "event"}]
    assert times == [100.0, 100.0, 101.0]
    assert "time -1.0 must be unix seconds" in caplog.text


def test_an_invalid_pause_is_reported_once_and_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    invalid: list[Any] = [0, -1, math.nan, math.inf, None, "soon", True]
    with offline(tmp_path) as run:
        run.log(0, loss=1.0)
        for seconds in invalid:
            run.expect(next_report_in=seconds)
    assert not [record for record in records(run) if "event" in record]
    assert caplog.text.count("next_report_in=") == 1


def test_a_pause_before_the_first_step_is_said_to_be_announced_to_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with offline(tmp_path) as run:
        for _ in range(2):
            run.expect(next_report_in=1800.0)
        assert caplog.messages == [UNANNOUNCED]
        run.log(0, loss=1.0)
        run.expect(next_report_in=1800.0)
    assert caplog.messages == [UNANNOUNCED]


def test_the_step_after_a_pause_reports_its_length_unless_it_reports_an_evaluation(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        for step, more in enumerate(({}, {"evaluation_seconds": 9.0}, {})):
            if step < 2:
                run.expect(next_report_in=60.0)
            run.log(step, loss=1.0, **more)
    first, *others = [metrics for _, metrics in steps(run)]
    assert 0 <= first.pop("pause_seconds") < 60.0
    assert [first, *others] == [{"loss": 1.0}, {"loss": 1.0, "evaluation_seconds": 9.0}, {"loss": 1.0}]


def test_many_threads_may_log(tmp_path: Path) -> None:
    def work(run: lossguard.Run) -> None:
        for _ in range(200):
            run.declare("tick")

    with offline(tmp_path) as run:
        run.log(0, loss=1.0)
        threads = [threading.Thread(target=work, args=(run,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum("event" in record for record in records(run)) == 800


def test_what_is_declared_before_the_first_step_waits_for_the_segment_it_belongs_to(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.declare("data_mix")
        run.set_restorable([0, 50])
        run.log(70, loss=1.0)
    _, segment, event, restorable, *_ = records(run)
    assert (segment["fork_step"], event["step"], restorable["restorable"]) == (70, 70, [0, 50])


def test_the_restorable_steps_are_recorded_when_they_change_and_when_a_load_was_measured(tmp_path: Path) -> None:
    def held(load: float | None, save: float) -> list[RestorableTier]:
        return [RestorableTier(tier=Tier.DISK, steps=(0,), load_seconds=load, save_seconds=save)]

    with offline(tmp_path) as run:
        run.log(0, loss=1.0)
        run.set_restorable([0], held(None, 1.0))
        run.set_restorable([0], held(None, 2.0))  # how long a save takes differs every time
        run.set_restorable([0], held(3.0, 2.0))
    lines = [record for record in records(run) if "restorable" in record]
    assert [(line["restorable"], line["tiers"]) for line in lines] == [
        ([0], [{"tier": "disk", "steps": [0], "save_seconds": 1.0}]),
        ([0], [{"tier": "disk", "steps": [0], "load_seconds": 3.0, "save_seconds": 2.0}]),
    ]


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "\x7f", "\ud800"])
def test_a_bad_name_costs_its_metric_and_not_the_step(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with offline(tmp_path) as run:
        for step in range(3):
            run.log(step, **{"loss": 1.0, name: 2.0, "lr": 0.5})
    assert steps(run) == [(step, {"loss": 1.0, "lr": 0.5}) for step in range(3)]
    assert caplog.text.count("a name has 1 to 128 characters") == 1


@pytest.mark.parametrize("value", [1e30, 2**63, -1, math.nan, math.inf])
def test_a_count_that_no_run_can_reach_is_left_out(
    tmp_path: Path, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()
    gate.set()
    with offline(tmp_path) as run:
        run.log(0, loss=1.0, tokens=value, batch_index=value)
        run.log(1, loss=value, tokens=DeviceTensor(value, gate))
        run.log(2, loss=1.0, tokens=2**62, batch_index=0)
    assert [set(metrics) for _, metrics in steps(run)] == [{"loss"}, {"loss"}, {"loss", "tokens", "batch_index"}]
    assert caplog.text.count("tokens=") == caplog.text.count("batch_index=") == 1


@pytest.mark.parametrize("on_device", [True, False])
def test_a_row_says_how_many_updates_were_skipped_since_the_one_before_if_any(tmp_path: Path, on_device: bool) -> None:
    gate = threading.Event()
    gate.set()
    with offline(tmp_path) as run:
        for step, number in enumerate([0.0, 1.0, 3.0]):
            run.skipped = DeviceTensor(number, gate) if on_device else number
            run.log(step, loss=2.0)
        run.log(3, loss=2.0)
        run.skipped = 1.0
        run.log(4, loss=2.0, skipped=2.0)  # what the loop says counts
    assert [metrics.get("skipped") for _, metrics in steps(run)] == [None, 1.0, 3.0, None, 2.0]


def test_names_of_the_methods_own_arguments_are_names_like_others(tmp_path: Path) -> None:
    for mode in ("offline", "off"):
        with lossguard.init("project", mode=mode, directory=tmp_path, run_id="r") as run:
            run.log(step=0, **{"self": 2.0})
            run.declare("data_mix", **{"self": 1})
            if mode == "offline":
                assert steps(run) == [(0, {"self": 2.0})]
                assert records(run)[-1]["details"] == {"self": 1}


def test_spools_and_the_folders_made_for_them_are_their_owners_alone(collector: FakeCollector, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        tmp_path.chmod(0o755)
        with lossguard.init("project", url=collector.url, directory=tmp_path / "a" / "b") as run:
            run.log(0, loss=1.0)
    finally:
        os.umask(before)
    modes = {path.relative_to(tmp_path): oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*")}
    assert [mode for path, mode in modes.items() if (tmp_path / path).is_dir()] == ["0o700"] * 4
    files = {path.suffix: mode for path, mode in modes.items() if path.suffix in (".spool", ".acknowledged")}
    assert files == {".spool": "0o600", ".acknowledged": "0o600"}
    assert oct(tmp_path.stat().st_mode & 0o777) == "0o755", "a folder that existed stays as it was"


FULL_DISK = """
import resource, sys, time, lossguard
run = lossguard.init("project", run_id="r", mode="offline", directory=sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_001, hard))  # the kernel refuses to let files grow
for step in range(1000):
    run.log(step, loss=float(step))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for step in range(1000, 1100):
    run.log(step, loss=float(step))
run.finish()
"""


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while_costs_no_step(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(lossguard.__file__).parents[2])}
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ran.stderr.count("cannot be written (File too large); lines wait in memory") == 1
    assert "0 lines were lost" in ran.stderr
    (spool,) = tmp_path.rglob("*.spool")
    read = [record["step"] for _, record in lossguard.read_spools(spool.parent) if "metrics" in record]
    assert read == list(range(1100))


def test_an_order_from_before_a_rewind_is_outdated_in_this_process_and_the_next(tmp_path: Path) -> None:
    with offline(tmp_path, run_id="r") as run:
        for step in (0, 1, 2, 1):
            run.log(step, loss=1.0)
        session = next(tmp_path.rglob("*.spool")).stem
        before, after = rollback(segment=f"{session}-0", step=2), rollback(segment=f"{session}-1", step=1)
        assert run.outdated(before) == "the run was rewound after it was decided"
        assert run.outdated(after) is None
    with offline(tmp_path, run_id="r") as run:
        run.log(2, loss=1.0)
        assert run.outdated(before) == "the run was rewound after it was decided"
        assert run.outdated(after) is None  # a resume goes on with the same state


def test_a_change_that_is_declared_makes_earlier_orders_outdated_and_not_later_ones(tmp_path: Path) -> None:
    with offline(tmp_path, run_id="r") as run:
        run.log(0, loss=1.0)
        key = f"{next(tmp_path.rglob('*.spool')).stem}-0"
        run.expect(next_report_in=60.0)
        run.log_event(SKIPPED_SAMPLE_RETURNED, {"step": 0, "batch_index": 3, "rows": 2})
        run.log_event("checkpoint_uncertified", {"step": 1, "reason": "model.weight holds NaN"})
        run.declare("remedy", name="lr", state="ended")
        early, late = rollback(segment=key, step=0), rollback(segment=key, step=1)
        assert run.outdated(early) is None
        run.declare("data_mix", share=0.5)
        run.log(1, loss=1.0)
        assert run.outdated(early) == "the run declared data_mix at step 1, after it was decided"
        assert run.outdated(late) is None
        assert run.outdated(rollback(segment="another-0", step=9)) is not None
        assert run.outdated(rollback()) is None  # of a collector that says nothing of it


def test_what_a_loop_reports_while_arms_are_tried_is_not_recorded(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.log(0, loss=1.0)
        run.aside = True
        run.log(1, loss=9.0)
        run.declare("learning_rate", to=0.1)
        run.add_seconds("evaluation_seconds", 5.0)
        run.aside = False
        run.log(1, loss=2.0)
    lines = [line for line in records(run) if "metrics" in line or "event" in line]
    assert [line["metrics"]["loss"] for line in lines] == [1.0, 2.0]
    assert "evaluation_seconds" not in lines[1]["metrics"]


def test_steps_that_were_discarded_or_skipped_or_are_before_a_change_say_nothing_of_the_state(tmp_path: Path) -> None:
    def log(steps: range, loss: float, **others: float) -> None:
        for step in steps:
            run.log(step, loss=loss + step % 5 / 100, **others)

    with offline(tmp_path) as run:
        log(range(200), 2.0)
        log(range(200, 210), 9.0, skipped=1)
        assert run.doubt(210) is None
        log(range(210, 220), 9.0)
        assert run.doubt(220) == "the loss of step 219 is in a spike: 9.04, and its band ends at 2.222"
        assert run.doubt(210) is None
        run.probe(219, "a", tokens=["b"], log_probabilities=[-0.1])
        assert run.doubt(220) is not None
        run.open_segment(205, SegmentReason.REWIND)
        log(range(205, 206), 2.0)
        assert run.doubt(220) is None
        log(range(206, 220), 9.0)
        assert run.doubt(220) is not None
        run.declare("data_mix", share=0.5)
        assert run.doubt(220) is None
