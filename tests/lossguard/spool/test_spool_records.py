import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from lossguard.run.recording import RecordingRun
from lossguard.run.settings import Settings
from lossguard.vocabulary.states import SegmentReason
from tests.lossguard.device_tensor import DeviceTensor
from tests.lossguard.recorded import offline, records, steps
from tests.lossguard.scripted import rollback


def test_a_device_tensor_is_never_read_in_the_loops_thread_and_keeps_its_place(tmp_path: Path) -> None:
    gate = threading.Event()
    with offline(tmp_path) as run:
        run.log(0, loss=1.0)
        run.log(1, loss=DeviceTensor(2.0, gate), lr=0.5)
        run.log(2, loss=3.0)
        assert [step for step, _ in steps(run)] == [0]
        gate.set()
    assert steps(run) == [(0, {"loss": 1.0}), (1, {"loss": 2.0, "lr": 0.5}), (2, {"loss": 3.0})]


def test_a_device_that_fails_costs_the_value_and_not_the_step(tmp_path: Path) -> None:
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
        current_accelerator=lambda: types.SimpleNamespace(type="tpu"), current_stream=lambda device: "the loop's stream"
    )
    torch = types.SimpleNamespace(Event=FakeEvent, Tensor=type("Tensor", (), {}), accelerator=accelerator)
    monkeypatch.setitem(sys.modules, "torch", torch)
    run = RecordingRun({"id": "r", "capabilities": []}, tmp_path, Settings.read({}))
    run.log(0, loss=DeviceTensor(2.0, gate))
    assert calls == ["made", "recorded on the loop's stream"]
    assert steps(run) == []
    gate.set()
    run.finish()
    assert steps(run) == [(0, {"loss": 2.0})]


def test_a_device_that_never_answers_holds_finish_no_longer_than_asked_and_costs_steps_alone(tmp_path: Path) -> None:
    gate = threading.Event()
    run = offline(tmp_path)
    run.log(0, loss=DeviceTensor(1.0, gate))
    run.refuse(rollback(1), "no checkpoint")
    run.open_segment(0, SegmentReason.REWIND)
    run.log(0, loss=DeviceTensor(1.0, gate))
    run.finish("failed", timeout=0.1)
    gate.set()
    assert [next(iter(record)) for record in records(run)] == ["run", "segment", "answer", "segment", "finish"]


def test_a_sharded_tensor_is_refused_in_a_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensor = DeviceTensor(1.0, threading.Event())
    tensor.full_tensor = None  # type: ignore[attr-defined]
    with offline(tmp_path) as run:
        run.log(0, grad_norm=tensor)
    assert "log its .full_tensor()" in caplog.text
