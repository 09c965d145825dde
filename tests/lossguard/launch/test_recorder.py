"""The recorder by itself, without a child: its journal is written by the test."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lossguard.launch.recorder import NOTHING_RECORDED, Recorder
from lossguard.run.run import Run
from lossguard.run.start import folder_of, init, storable_config
from lossguard.sources.names import NameMap
from lossguard.spool.folders import LOCK_FILE
from lossguard.spool.history import read_spools
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.states import RunState, SegmentReason


class Origin:
    """Begins an offline run in `folder`; `problems`: what the next attempts raise."""

    def __init__(self, directory: Path, *problems: str) -> None:
        self.directory, self.problems = directory, list(problems)

    def begin(self, facts: dict[str, Any]) -> Run:
        if self.problems:
            raise ConfigurationError(self.problems.pop())
        return init(
            facts.get("project") or "p", config=self.config(facts), run_id="r", mode="offline", directory=self.directory
        )

    def config(self, facts: dict[str, Any]) -> dict[str, Any]:
        return storable_config(facts.get("config"))

    def folder(self, facts: dict[str, Any]) -> Path:
        return folder_of(self.directory, facts.get("project") or "p", "r")


def entry(step: int, **values: float) -> dict[str, Any]:
    return {"step": step, "time": 100.0 + step, "values": values, "tracker": "wandb", "complete": True}


def write(path: Path, *entries: dict[str, Any] | str) -> None:
    with path.open("a") as file:
        file.writelines(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in entries)


def record(origin: Origin, *journals: Path, batch_of: Callable[[int], int | None] = lambda step: None) -> None:
    """A recorder that follows the journals one after the other, to the end."""
    recorder = Recorder(origin, NameMap())
    recorder.batch_of = batch_of
    for journal in journals:
        recorder.follow(journal)
    recorder.close(RunState.FINISHED, 5.0)


def steps(tmp_path: Path) -> list[tuple[int, float]]:
    folder = next(tmp_path.glob("*/r"))
    return [(each["step"], each["metrics"]["loss"]) for _, each in read_spools(folder) if "metrics" in each]


def test_a_journal_is_recorded_and_deleted(tmp_path: Path) -> None:
    write(tmp_path / "a.journal", {"tracker": "wandb", "project": "q"}, entry(0, loss=2.0), entry(1, loss=1.0))
    record(Origin(tmp_path), tmp_path / "a.journal")
    assert steps(tmp_path) == [(0, 2.0), (1, 1.0)]
    assert (tmp_path / "q" / "r").is_dir()
    assert list(tmp_path.glob("a.*")) == []


def test_a_script_that_begins_to_report_itself_meanwhile_has_the_run_to_itself(tmp_path: Path) -> None:
    class BesideScript(Origin):
        def folder(self, facts: dict[str, Any]) -> Path:
            write(tmp_path / "a.journal", {"script_reports": 4711})
            return super().folder(facts)

    write(tmp_path / "a.journal", entry(0, loss=2.0))
    record(BesideScript(tmp_path), tmp_path / "a.journal")
    assert list(read_spools(tmp_path / "p" / "r")) == []


def test_a_script_that_dies_before_it_reports_itself_again_has_recorded_something(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.journal", {"script_reports": 4711})
    write(tmp_path / "b.journal", {"ended": "ImportError"})
    recorder = Recorder(Origin(tmp_path), NameMap())
    for journal in ("a.journal", "b.journal"):
        recorder.follow(tmp_path / journal)
        recorder.drain()
    recorder.close(RunState.FAILED, 5.0)
    assert (recorder.script_reports, recorder.has_reported) == (False, True)
    assert caplog.messages == []


def test_a_script_cannot_take_the_folder_while_the_run_is_begun(tmp_path: Path) -> None:
    class Watched(Origin):
        def begin(self, facts: dict[str, Any]) -> Run:
            with (self.folder(facts) / LOCK_FILE).open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return super().begin(facts)

    write(tmp_path / "a.journal", entry(0, loss=2.0))
    record(Watched(tmp_path), tmp_path / "a.journal")
    assert steps(tmp_path) == [(0, 2.0)]


def test_a_run_without_a_row_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.journal", {"tracker": "wandb", "project": "q"})
    recorder = Recorder(Origin(tmp_path), NameMap(), at_once=True)
    assert recorder.begin_at_once() is not None
    recorder.follow(tmp_path / "a.journal")
    recorder.close(RunState.FINISHED, 5.0)
    assert caplog.messages == [NOTHING_RECORDED]


def test_a_journal_whose_run_cannot_be_begun_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.journal", entry(0, loss=2.0))
    record(Origin(tmp_path, "the folder is in use", "the folder is in use"), tmp_path / "a.journal")
    assert (tmp_path / "a.journal").exists()
    assert "the folder is in use" in caplog.text
    record(Origin(tmp_path), tmp_path / "a.journal")
    assert steps(tmp_path) == [(0, 2.0)]


def test_a_line_that_was_cut_off_and_a_configuration_that_no_collector_accepts_cost_no_step(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(30):
        deep = {"deeper": deep}
    cut_off: list[Any] = ['{"step":1,"val', {"step": "x", "time": 1, "values": {"loss": 1}}]
    described = {"tracker": "wandb", "config": deep}
    write(tmp_path / "a.journal", entry(0, loss=2.0), *cut_off, described, entry(2, loss=1.0))
    record(Origin(tmp_path), tmp_path / "a.journal")
    assert steps(tmp_path) == [(0, 2.0), (2, 1.0)]


def test_each_child_is_a_segment(tmp_path: Path) -> None:
    write(tmp_path / "a.journal", entry(0, loss=2.0), entry(1, loss=1.0))
    write(tmp_path / "b.journal", entry(1, loss=1.5))
    record(Origin(tmp_path), tmp_path / "a.journal", tmp_path / "b.journal")
    folder = next(tmp_path.glob("*/r"))
    segments = [(each["reason"], each["fork_step"]) for _, each in read_spools(folder) if "segment" in each]
    assert segments == [("start", 0), ("resume", 1)]
    assert steps(tmp_path) == [(0, 2.0), (1, 1.0), (1, 1.5)]


@pytest.mark.parametrize("is_same_launcher", [True, False])
def test_a_scalar_at_the_start_up_of_a_resumed_command_does_not_fork_the_run_at_step_0(
    tmp_path: Path, is_same_launcher: bool
) -> None:
    write(tmp_path / "a.journal", *(entry(step, loss=2.0) for step in range(10)))
    write(tmp_path / "b.journal", entry(0, hp_metric=-1.0) | {"time": 150.0}, entry(5, loss=1.0) | {"time": 160.0})
    journals = [tmp_path / "a.journal", tmp_path / "b.journal"]
    for each in [journals] if is_same_launcher else [journals[:1], journals[1:]]:
        record(Origin(tmp_path), *each, batch_of=lambda step: step)  # as with --restart-with
    found = [each for _, each in read_spools(tmp_path / "p" / "r")]
    segments = [(each["reason"], each["fork_step"]) for each in found if "segment" in each]
    assert segments == [("start", 0), ("resume", 5)]
    assert [each["metrics"] for each in found if "metrics" in each][-1] == {
        "hp_metric": -1.0,
        "loss": 1.0,
        "batch_index": 5,
    }


@pytest.mark.parametrize("is_same_launcher", [True, False])
def test_a_resumed_command_whose_loss_has_an_unknown_name_is_recorded_again_from_its_checkpoint(
    tmp_path: Path, is_same_launcher: bool
) -> None:
    write(tmp_path / "a.journal", *(entry(step, objective=2.0) for step in range(10)))
    write(tmp_path / "b.journal", *(entry(step, objective=1.0) | {"time": 150.0 + step} for step in range(5, 10)))
    journals = [tmp_path / "a.journal", tmp_path / "b.journal"]
    for each in [journals] if is_same_launcher else [journals[:1], journals[1:]]:
        record(Origin(tmp_path), *each)
    found = [each for _, each in read_spools(tmp_path / "p" / "r")]
    assert [each["reason"] for each in found if "segment" in each] == ["start", "resume"]
    rows = [(each["step"], each["metrics"]["objective"]) for each in found if "metrics" in each]
    assert rows[10:] == [(6, 1.0), (7, 1.0), (8, 1.0), (9, 1.0)]  # the first row waits: it may be a start-up scalar


def test_what_a_continued_command_logs_without_a_step_of_training_is_recorded_at_its_end(tmp_path: Path) -> None:
    write(tmp_path / "a.journal", entry(0, loss=2.0), entry(1, loss=1.5))
    record(Origin(tmp_path), tmp_path / "a.journal")
    write(tmp_path / "b.journal", entry(0, accuracy=0.5) | {"time": 150.0})
    record(Origin(tmp_path), tmp_path / "b.journal")
    found = [each for _, each in read_spools(tmp_path / "p" / "r") if "metrics" in each]
    assert (found[-1]["step"], found[-1]["metrics"]) == (2, {"accuracy": 0.5})


def test_what_a_command_logged_last_after_its_launcher_was_killed_is_recorded_before_the_next_command(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.journal", entry(0, loss=2.0), entry(1, loss=1.5))
    record(Origin(tmp_path), tmp_path / "a.journal")
    write(tmp_path / "left.journal", entry(1, accuracy=0.5) | {"time": 150.0})
    recorder = Recorder(Origin(tmp_path), NameMap())
    recorder.follow(tmp_path / "left.journal")
    recorder.follow(tmp_path / "b.journal", is_left=False)
    recorder.close(RunState.FINISHED, 5.0)
    found = [each for _, each in read_spools(tmp_path / "p" / "r") if "metrics" in each]
    assert [(each["step"], each["metrics"]) for each in found][2:] == [(2, {"accuracy": 0.5})]


def test_no_row_of_a_new_child_is_left_out_because_its_clock_is_behind(tmp_path: Path) -> None:
    write(tmp_path / "a.journal", entry(0, loss=2.0), entry(1, loss=1.5))
    record(Origin(tmp_path), tmp_path / "a.journal")
    write(tmp_path / "left.journal", entry(1, loss=1.5))  # recorded before its launcher was killed
    write(tmp_path / "b.journal", entry(2, loss=1.0) | {"time": 50.0}, entry(3, loss=0.5) | {"time": 51.0})
    recorder = Recorder(Origin(tmp_path), NameMap(), at_once=True)
    recorder.follow(tmp_path / "left.journal")
    recorder.begin_at_once()
    recorder.follow(tmp_path / "b.journal", is_left=False)
    recorder.close(RunState.FINISHED, 5.0)
    assert steps(tmp_path) == [(0, 2.0), (1, 1.5), (2, 1.0), (3, 0.5)]


def test_what_a_killed_launcher_has_left_stands_before_the_segment_of_a_kept_rollback(tmp_path: Path) -> None:
    write(tmp_path / "a.journal", entry(5, loss=2.0), entry(6, loss=9.0))
    write(tmp_path / "c.journal", entry(7, loss=9.0))
    write(tmp_path / "b.journal", entry(2, loss=1.0) | {"time": 200.0})
    recorder = Recorder(Origin(tmp_path), NameMap(), at_once=True)
    recorder.follow(tmp_path / "a.journal")
    recorder.follow(tmp_path / "c.journal")
    run = recorder.begin_at_once()
    assert run is not None
    run.open_segment(2, SegmentReason.ROLLBACK)
    recorder.follow(tmp_path / "b.journal", opens_segment=False)
    recorder.close(RunState.FINISHED, 5.0)
    found = [each for _, each in read_spools(tmp_path / "p" / "r") if "segment" in each or "metrics" in each]
    assert [each.get("reason", each.get("step")) for each in found] == ["start", 5, 6, "resume", 7, "rollback", 2]


@pytest.mark.usefixtures("file_locks")
def test_a_process_that_goes_on_after_the_command_keeps_its_journal_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a command does that puts itself into the background."""
    journal = tmp_path / "a.journal"
    write(journal, entry(0, loss=2.0))
    with journal.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as the hooks of that process hold it
        record(Origin(tmp_path), journal)
    assert steps(tmp_path) == [(0, 2.0)]
    assert journal.exists()
    assert "a process that it started goes on" in caplog.text


DESCRIBED = {
    "tracker": "text",
    "what": "lines of Megatron-LM",
    "config": {"trainer": "Megatron-LM"},
    "facts": {"averaged": True},
}


def printed(step: int, at: float, **values: float) -> dict[str, Any]:
    return {"step": step, "time": at, "values": values, "tracker": "text"}


@pytest.mark.parametrize(
    ("tracker_at", "takes_text", "recorded", "is_said"),
    [
        (159.0, False, [(0, 2.0), (1, 1.0)], False),  # the tracker is called within a minute of the first line
        (161.0, False, [(5, 7.0), (6, 6.0), (7, 5.0)], True),
        (100.0, True, [(5, 7.0), (6, 6.0), (7, 5.0)], True),  # --text
        (None, False, [(5, 7.0), (6, 6.0), (7, 5.0)], False),  # the command has ended before the minute was over
    ],
)
def test_printed_lines_are_recorded_unless_a_tracker_is_called_within_a_minute(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    tracker_at: float | None,
    takes_text: bool,
    recorded: list[tuple[int, float]],
    is_said: bool,
) -> None:
    entries = [DESCRIBED, printed(5, 100.0, loss=7.0), printed(6, 101.0, loss=6.0)]
    if tracker_at is not None:
        calls = [entry(0, loss=2.0) | {"time": tracker_at}, entry(1, loss=1.0) | {"time": tracker_at + 1}]
        entries += [{"tracker": "wandb", "config": {"lr": 0.1}}, *calls]
    write(tmp_path / "a.journal", *entries, printed(7, 170.0, loss=5.0))
    recorder = Recorder(Origin(tmp_path), NameMap(), takes_text=takes_text)
    left: list[None] = []
    recorder.leave_text = lambda: left.append(None)
    recorder.follow(tmp_path / "a.journal")
    recorder.close(RunState.FINISHED, 5.0)
    assert steps(tmp_path) == recorded
    found = [each for _, each in read_spools(next(tmp_path.glob("*/r")))]
    averaged = [each["details"]["averaged"] for each in found if each.get("event") == "source"]
    assert averaged == [True] * (not left)
    assert bool(left) == (recorded[0][0] == 0)
    assert ("a tracker is called now: its rows are left out" in caplog.text) == is_said
    assert ("the command prints lines of Megatron-LM: they are recorded" in caplog.text) == (not left)


def test_printed_lines_that_wait_survive_kill_9_of_the_launcher(tmp_path: Path) -> None:
    journal = tmp_path / "a.journal"
    write(journal, DESCRIBED, *(printed(step, 100.0 + step, loss=2.0) for step in range(3)))
    killed = Recorder(Origin(tmp_path), NameMap(), at_once=True)
    killed.follow(journal)
    killed._step()  # begins the run and reads the journal; nothing is decided
    assert killed.recorded is not None
    assert killed._following is not None
    killed._following.close(is_done=False)
    killed.recorded.finish(timeout=0.0)
    record(Origin(tmp_path), journal)
    assert steps(tmp_path) == [(0, 2.0), (1, 2.0), (2, 2.0)]


@pytest.mark.parametrize("prints", [False, True])
def test_a_command_that_neither_calls_a_tracker_nor_prints_a_known_line_is_said_once_after_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, prints: bool
) -> None:
    now = 100.0
    monkeypatch.setattr("lossguard.launch.recorder.time.monotonic", lambda: now)
    monkeypatch.setattr("lossguard.launch.recorder.time.time", lambda: 1000.0 + now)
    recorder = Recorder(Origin(tmp_path), NameMap())
    recorder.follow(tmp_path / "a.journal")
    if prints:  # a known line just now: it waits for a tracker
        write(tmp_path / "a.journal", DESCRIBED, printed(5, 1150.0, loss=7.0))
    for now in (101.0, 159.0, 161.0, 162.0):
        recorder._step()
        assert caplog.text.count("nothing to record so far") == (now > 160.0 and not prints)
    assert ("--pattern REGEX says how one looks" in caplog.text) == (not prints)
    recorder.close(RunState.FINISHED, 0.0)


def test_rows_that_are_rare_are_said_once_and_recorded_with_their_stride(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.journal", *(entry(250 * k, loss=2.0) for k in range(20)))
    record(Origin(tmp_path), tmp_path / "a.journal")
    said = "the loss is logged every 250th step only: most spikes end between two rows and are not seen; log every step"
    assert [each.message for each in caplog.records].count(said) == 1
    events = [each for _, each in read_spools(next(tmp_path.glob("*/r"))) if each.get("event") == "source"]
    assert [each["details"]["stride"] for each in events] == [250]
