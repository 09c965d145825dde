import json
import math
import os
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest

import lossguard
from lossguard.orders import Order
from lossguard.protocol import MAX_TEXT, checked_json
from lossguard.spooling.spool import spools_in
from lossguard.states import OrderKind, SegmentReason


def offline(folder: Path, **options: Any) -> lossguard.Run:
    return lossguard.init("project", mode="offline", directory=folder, **options)


def records(run: lossguard.Run) -> list[dict[str, Any]]:
    assert run.directory is not None
    return [json.loads(line) for path in spools_in(run.directory) for line in path.read_bytes().splitlines()]


def steps(run: lossguard.Run) -> list[tuple[int, dict[str, Any]]]:
    return [(record["step"], record["metrics"]) for record in records(run) if "metrics" in record]


def test_a_step_is_in_the_spool_when_log_returns(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.log(0, loss=1.5, tokens=4096, lr=1e-3)
        assert steps(run) == [(0, {"loss": 1.5, "tokens": 4096, "lr": 1e-3})]


def test_a_run_describes_itself_first(tmp_path: Path) -> None:
    with offline(tmp_path, name="first", config={"lr": 1e-3, "bad": math.nan, "path": tmp_path}, total_steps=9) as run:
        first = records(run)[0]["run"]
    assert (first["id"], first["name"], first["project"], first["total_steps"]) == (run.id, "first", "project", 9)
    assert first["config"] == {"lr": 1e-3, "bad": "NaN", "path": str(tmp_path)}
    assert first["versions"]["python"]


def test_the_configuration_may_be_a_namespace(tmp_path: Path) -> None:
    with offline(tmp_path, config=types.SimpleNamespace(lr=0.1)) as run:
        assert records(run)[0]["run"]["config"] == {"lr": 0.1}
    with pytest.raises(ValueError, match="config="):
        offline(tmp_path, config=3)


def test_tags_are_part_of_the_configuration(tmp_path: Path) -> None:
    with offline(tmp_path, config={"lr": 0.1}, tags=["sweep 3", "baseline", "sweep 3"]) as run:
        assert records(run)[0]["run"]["config"] == {"lr": 0.1, "tags": ["sweep 3", "baseline"]}
    with offline(tmp_path, config={"tags": ["mine"]}) as run:
        assert records(run)[0]["run"]["config"] == {"tags": ["mine"]}


@pytest.mark.parametrize("tags", ["one", [1], [""], ["a\n"], ["x"] * 33])
def test_tags_that_are_no_list_of_words_are_refused(tmp_path: Path, tags: Any) -> None:
    with pytest.raises(ValueError, match="must be a list of at most 32 texts"):
        offline(tmp_path, tags=tags)
    with pytest.raises(ValueError, match="use only one of them"):
        offline(tmp_path, tags=["a"], config={"tags": ["b"]})


def test_non_finite_values_are_kept_as_the_protocol_writes_them(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.log(0, loss=math.nan, grad_norm=math.inf, log_z=-math.inf, lr=1.0)
    assert steps(run)[0][1] == {"loss": "NaN", "grad_norm": "Infinity", "log_z": "-Infinity", "lr": 1.0}


def test_a_bad_value_is_dropped_without_its_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with offline(tmp_path) as run:
        for step in range(3):
            run.log(step, loss=1.0, note="a string", absent=None)
    assert steps(run) == [(step, {"loss": 1.0}) for step in range(3)]
    assert caplog.text.count("note was not recorded") == 1


def test_nothing_that_is_logged_raises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with offline(tmp_path) as run:
        run.log("first", loss=1.0)  # type: ignore[arg-type]
        run.log(-1, loss=1.0)
        run.declare("data_mix", weird=object())
        run.log(0, loss=1.0)
    run.log(1, loss=1.0)
    run.finish()
    assert [step for step, _ in steps(run)] == [0]
    assert "step -1 is below 0" in caplog.text


def test_a_step_not_above_the_last_begins_a_new_segment(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        for step in (0, 1, 2, 1, 2):
            run.log(step, loss=1.0)
    segments = [record for record in records(run) if "segment" in record]
    assert [(each["fork_step"], each["reason"]) for each in segments] == [(0, "start"), (1, "rewind")]


def test_the_same_run_id_resumes_the_run_in_a_new_spool(tmp_path: Path) -> None:
    with offline(tmp_path, run_id="r") as run:
        run.log(0, loss=1.0)
    with offline(tmp_path, run_id="r") as run:
        run.log(1, loss=1.0)
    segments = [record for record in records(run) if "segment" in record]
    assert [each["reason"] for each in segments] == ["start", "resume"]


def test_a_run_resumed_while_the_clock_is_behind_continues_after_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its segment was opened "before" the one that it resumes: it was stored, and never judged."""
    real, real_ns = time.time, time.time_ns
    for hours_behind in range(3):
        monkeypatch.setattr(time, "time", lambda behind=3600 * hours_behind: real() - behind)
        monkeypatch.setattr(time, "time_ns", lambda behind=3600 * 10**9 * hours_behind: real_ns() - behind)
        with offline(tmp_path, run_id="r") as run:
            run.log(hours_behind, loss=1.0)
            run.log(0, loss=1.0)
    assert [step for step, _ in steps(run)] == [0, 0, 1, 0, 2, 0]
    opened = [record["time"] for record in records(run) if "segment" in record]
    assert opened == sorted(set(opened))


def test_a_declared_event_takes_effect_at_the_next_step(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.log(4, loss=1.0)
        run.declare("learning_rate", lr=math.inf)
    event = next(record for record in records(run) if "event" in record)
    assert (event["event"], event["step"], event["details"]) == ("learning_rate", 5, {"lr": "Infinity"})


def test_an_announced_pause_is_in_the_spool_when_expect_returns(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.log(4, loss=1.0)
        run.expect(next_report_in=90)
        event = records(run)[-1]
    assert (event["event"], event["step"], event["details"]) == ("expect", 5, {"next_report_in": 90.0})


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, None, "soon", True])
def test_an_invalid_pause_is_reported_once_and_ignored(
    tmp_path: Path, seconds: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with offline(tmp_path) as run:
        run.log(0, loss=1.0)
        run.expect(next_report_in=seconds)
        run.expect(next_report_in=seconds)
    assert not [record for record in records(run) if "event" in record]
    assert caplog.text.count("next_report_in=") == 1


@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "finished"), (SystemExit, "finished"), (RuntimeError, "failed"), (KeyboardInterrupt, "interrupted")],
)
def test_leaving_the_block_records_how_the_run_ended(
    tmp_path: Path, error: type[BaseException] | None, state: str
) -> None:
    def train() -> None:
        with offline(tmp_path, run_id="r"):
            if error is not None:
                raise error

    if error is None:
        train()
    else:
        with pytest.raises(error):
            train()
    run = offline(tmp_path, run_id="r")
    assert [record["finish"] for record in records(run) if "finish" in record] == [state]
    run.finish()


def test_off_does_nothing_at_all(tmp_path: Path) -> None:
    with lossguard.init("project", mode="off", directory=tmp_path) as run:
        run.log(0, loss=1.0)
        run.declare("data_mix")
        run.expect(next_report_in=60)
        assert run.take_order() is None
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_records_nothing(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.log(0, loss=1.0)
        child = os.fork()
        if child == 0:
            run.log(1, loss=666.0)
            run.finish()
            os._exit(0)
        os.waitpid(child, 0)
        run.log(1, loss=2.0)
    assert [metrics["loss"] for _, metrics in steps(run)] == [1.0, 2.0]


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


def test_an_answered_order_is_remembered_by_the_next_session(tmp_path: Path) -> None:
    applied = {"rewound_to": 50, "skip_from": 60, "skip_to": 90, "lr_scale": 0.5, "reason": "spike"}
    with offline(tmp_path, run_id="r") as run:
        run.open_segment(0, SegmentReason.START)
        run.refuse(Order(id=1, kind=OrderKind.ROLLBACK), "no checkpoint")
        run.open_segment(50, SegmentReason.ROLLBACK, Order(id=2, kind=OrderKind.ROLLBACK), applied)
    with offline(tmp_path, run_id="r") as run:
        assert run.history.answered == {1, 2}
        assert run.history.skips == [lossguard.Skip(60, 90, "spike")]
        assert run.history.lr_scale == 0.5


class DeviceTensor:
    """Behaves like a 0-dim tensor whose kernel has not run yet: reading it in the loop's thread is an error."""

    def __init__(self, value: float, gate: threading.Event, *, on_host: bool = False) -> None:
        self.value, self.gate, self.on_host = value, gate, on_host
        self.device = types.SimpleNamespace(type="cpu" if on_host else "tpu")

    def detach(self) -> "DeviceTensor":
        return self

    def clone(self) -> "DeviceTensor":
        return DeviceTensor(self.value, self.gate)

    def to(self, device: str, non_blocking: bool) -> "DeviceTensor":
        assert (device, non_blocking) == ("cpu", True)
        return DeviceTensor(self.value, self.gate, on_host=True)

    def item(self) -> float:
        assert threading.current_thread() is not threading.main_thread()
        assert self.gate.wait(10)
        return self.value


def test_a_device_tensor_is_never_read_in_the_loops_thread_and_keeps_its_place(tmp_path: Path) -> None:
    gate = threading.Event()
    with offline(tmp_path) as run:
        run.log(0, loss=1.0)
        run.log(1, loss=DeviceTensor(2.0, gate), lr=0.5)
        run.log(2, loss=3.0)
        assert [step for step, _ in steps(run)] == [0]
        gate.set()
    assert steps(run) == [(0, {"loss": 1.0}), (1, {"loss": 2.0, "lr": 0.5}), (2, {"loss": 3.0})]


def test_a_failing_device_loses_the_value_and_not_the_step(tmp_path: Path) -> None:
    class Broken(DeviceTensor):
        def clone(self) -> DeviceTensor:
            return Broken(self.value, self.gate)

        def item(self) -> float:
            raise RuntimeError("device-side assert")

    with offline(tmp_path) as run:
        run.log(0, loss=Broken(0.0, threading.Event()), lr=1.0)
    assert steps(run) == [(0, {"lr": 1.0})]


def test_a_device_with_events_is_waited_for_through_its_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    calls: list[str] = []

    class FakeEvent:
        def __init__(self, device: Any) -> None:
            calls.append("made")

        def record(self, stream: str) -> None:
            calls.append(f"recorded on {stream}")

        def query(self) -> bool:
            assert threading.current_thread() is not threading.main_thread()
            return gate.is_set()

    accelerator = types.SimpleNamespace(
        current_accelerator=lambda: types.SimpleNamespace(type="tpu"),
        current_stream=lambda device: "the loop's stream",
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(Event=FakeEvent, accelerator=accelerator))
    run = lossguard.recording.RecordingRun(
        registration={"id": "r", "capabilities": []}, directory=tmp_path, client=None
    )
    run.log(0, loss=DeviceTensor(2.0, gate))
    assert calls == ["made", "recorded on the loop's stream"]
    assert steps(run) == []
    gate.set()
    run.finish()
    assert steps(run) == [(0, {"loss": 2.0})]


def test_a_device_that_never_answers_delays_finish_no_longer_than_its_timeout(tmp_path: Path) -> None:
    gate = threading.Event()
    run = offline(tmp_path)
    run.log(0, loss=DeviceTensor(1.0, gate))
    run.finish(timeout=0.1)
    gate.set()


def test_a_sharded_tensor_is_refused_in_a_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensor = DeviceTensor(1.0, threading.Event())
    tensor.full_tensor = None  # type: ignore[attr-defined]
    with offline(tmp_path) as run:
        run.log(0, grad_norm=tensor)
    assert "log its .full_tensor()" in caplog.text


def test_what_is_declared_before_the_first_step_waits_for_the_segment_it_belongs_to(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.declare("data_mix")
        run.set_restorable([0, 50])
        run.log(70, loss=1.0)
    _, segment, event, restorable, *_ = records(run)
    assert (segment["fork_step"], event["step"], restorable["restorable"]) == (70, 70, [0, 50])


def test_an_order_with_a_key_of_its_own_is_new_though_its_id_was_answered(tmp_path: Path) -> None:
    """A store that was rebuilt counts its orders from 1 again."""

    def order(id: int, key: str | None) -> Order:
        return Order(id=id, kind=OrderKind.HOLD, key=key)

    with offline(tmp_path, run_id="r") as run:
        run.open_segment(0, SegmentReason.START)
        run.accept(order(1, "a"))
        run.accept(order(2, None))
        run.open_segment(50, SegmentReason.ROLLBACK, order(3, "c"), {"rewound_to": 50})
    with offline(tmp_path, run_id="r") as run:
        assert run.history.answered == {"a", 2, "c"}
        inbox = [order(1, "a"), order(2, None), order(3, "c"), order(1, "b"), order(1, "b")]
        run._receive(inbox)  # type: ignore[attr-defined]
        assert [run.take_order(), run.take_order()] == [order(1, "b"), None]


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "\x7f", "\ud800"])
def test_a_bad_name_loses_its_metric_and_not_the_step(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with offline(tmp_path) as run:
        for step in range(3):
            run.log(step, **{"loss": 1.0, name: 2.0, "lr": 0.5})
    assert steps(run) == [(step, {"loss": 1.0, "lr": 0.5}) for step in range(3)]
    assert caplog.text.count("a name has 1 to 128 characters") == 1


@pytest.mark.parametrize("value", [1e30, 2**63, -1, math.nan, math.inf])
def test_an_impossible_count_is_omitted(tmp_path: Path, value: float, caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    gate.set()
    with offline(tmp_path) as run:
        run.log(0, loss=1.0, tokens=value, batch_index=value)
        run.log(1, loss=value, tokens=DeviceTensor(value, gate))
        run.log(2, loss=1.0, tokens=2**62, batch_index=0)
    assert [set(metrics) for _, metrics in steps(run)] == [{"loss"}, {"loss"}, {"loss", "tokens", "batch_index"}]
    assert caplog.text.count("tokens=") == caplog.text.count("batch_index=") == 1


def test_names_of_the_methods_own_arguments_are_names_like_others(tmp_path: Path) -> None:
    for mode in ("offline", "off"):
        with lossguard.init("project", mode=mode, directory=tmp_path, run_id="r") as run:
            run.log(step=0, **{"self": 2.0})
            run.declare("data_mix", **{"self": 1})
            if mode == "offline":
                assert steps(run) == [(0, {"self": 2.0})]
                assert records(run)[-1]["details"] == {"self": 1}


def test_a_configuration_that_is_no_json_of_a_sane_size_is_one_sentence(tmp_path: Path) -> None:
    itself: dict[str, Any] = {}
    itself["self"] = itself
    for config, why in ((itself, "contains itself"), ({"text": "x" * (5 << 20)}, "takes 5242892 bytes")):
        with pytest.raises(lossguard.ConfigurationError, match=why):
            offline(tmp_path, config=config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "why"),
    [({"values": [0] * 20_000}, "20000 values"), ({"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}, "16 levels")],
)
def test_a_configuration_that_a_collector_would_refuse_is_one_sentence(tmp_path: Path, config: Any, why: str) -> None:
    with pytest.raises(lossguard.ConfigurationError, match=why):
        offline(tmp_path, config=config)
    assert not list(tmp_path.iterdir())


def test_a_collector_accepts_what_a_run_records_about_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One long command line, or one zero character, and nothing of the run was ever delivered."""
    monkeypatch.setattr(sys, "orig_argv", ["/opt/env/bin/python", "-c", "x" * 20_000])
    with offline(tmp_path, config={"sep\0": "a\0b"}) as run:
        first = records(run)[0]["run"]
    assert first["config"] == {"sep\u2400": "a\u2400b"}
    assert checked_json(first)["command"] == ("python -c " + "x" * 20_000)[:MAX_TEXT]
