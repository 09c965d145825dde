"""TensorBoard folders, written by the real writers and growing in pieces."""

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossguard.sources.readers import event_files
from lossguard.sources.rows import Row
from lossguard.sources.source_run import BadSource
from lossguard.vocabulary.source_facts import SourceFacts
from tests.lossguard.sources.recorded_source import RecordedSource

pytest.importorskip("tensorboard")


TAGS = ("train/loss", "train/grad_norm")


def write(
    folder: Path, first: int, last: int, *, begin: int, process: int = 1, shift: float = 0.0, tags: Sequence[str] = TAGS
) -> Path:
    """An event file as PyTorch's SummaryWriter makes it, with losses of the steps from `first` to `last` - 1."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.out.tfevents.{begin}.host.{process}.0"
    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=begin, file_version="brain.Event:2").SerializeToString())
        for step in range(first, last):
            for tag in tags:
                value = Summary.Value(tag=tag, simple_value=10.0 - step / 100 + shift)
                event = Event(wall_time=begin + step, step=step, summary=Summary(value=[value]))
                writer.write(event.SerializeToString())
    return path


def rows(path: Path) -> list[Row]:
    (run,) = event_files.runs_in(path)
    return list(run.rows())


@pytest.mark.slow
def test_what_the_writer_of_pytorch_writes_is_read_in_old_and_new_form(tmp_path: Path) -> None:
    import torch
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(5):
            writer.add_scalar("loss", 2.5, step)
            writer.add_scalar("nan", math.nan, step, new_style=True)
            writer.add_scalar("lr", 0.5, step, new_style=True, double_precision=True)
            writer.add_histogram("weights", torch.ones(2), step)
        writer.add_text("args", json.dumps({"logging_steps": 10, "logging_nan_inf_filter": True}), 0)
        writer.add_hparams({"width": 8, "name": "x"}, {})
    (run,) = event_files.runs_in(tmp_path)
    found = list(run.rows())
    assert [row.step for row in found] == list(range(5))
    assert (found[0].values["loss"], found[0].values["lr"]) == (2.5, 0.5)
    assert math.isnan(found[0].values["nan"])
    assert run.config["width"] == 8
    assert run.config["args"]["logging_steps"] == 10
    assert run.facts == SourceFacts(stride=10, averaged=True, nan_filtered=True)


def test_files_that_one_process_writes_side_by_side_are_read_together(tmp_path: Path) -> None:
    write(tmp_path, 0, 4, begin=1_700_000_000)
    path = write(tmp_path / "other", 0, 4, begin=1_700_000_000, tags=("val/loss",))
    path.rename(tmp_path / "events.out.tfevents.1700000000.host.1.1")
    (tmp_path / "other").rmdir()
    assert [(row.step, len(row.values)) for row in rows(tmp_path)] == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_each_folder_with_event_files_is_a_run_named_by_its_path(tmp_path: Path) -> None:
    for name in ("a", "group/b"):
        write(tmp_path / name, 0, 2, begin=1_700_000_000)
    (tmp_path / "group/b/events.out.tfevents.1.profile-empty").write_bytes(b"")
    assert [(run.name, run.size) for run in event_files.runs_in(tmp_path)] == [("a", 2), ("group/b", 2)]


def test_the_id_follows_from_the_first_file_and_not_from_the_place(tmp_path: Path) -> None:
    path = write(tmp_path / "here/run", 0, 2, begin=1_700_000_000)
    (here,) = event_files.runs_in(tmp_path / "here")
    (tmp_path / "there").mkdir()
    path.parent.rename(tmp_path / "there/run")
    write(tmp_path / "there/run", 2, 4, begin=1_700_009_000, process=2)
    (there,) = event_files.runs_in(tmp_path / "there")
    assert here.run_id == there.run_id


def test_without_tensorboard_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 0, 2, begin=1_700_000_000)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(BadSource, match="pip install tensorboard"):
        list(event_files.runs_in(tmp_path))


def test_a_damaged_file_is_read_to_the_damage_and_says_where_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, 0, 3, begin=1_700_000_000)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"\0" * 100)
    (run,) = event_files.runs_in(tmp_path)
    with pytest.raises(BadSource, match=f"behind byte {size}"):
        list(run.rows())


def test_a_watched_file_whose_end_is_not_there_yet_is_read_on_when_it_is(tmp_path: Path) -> None:
    """A network file system may show a file longer than it is yet, with zeros at its end."""
    path = write(tmp_path, 0, 6, begin=1_700_000_000)
    data = path.read_bytes()
    path.write_bytes(data[:200] + b"\0" * (len(data) - 200))
    source = RecordedSource("tensorboard", tmp_path)
    source.poll()
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    source.poll(final=True)
    assert [step for step, _ in source.rows] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("num_scalars", [0, 2])
def test_a_file_of_another_process_does_not_end_the_reading_of_one_that_grows(
    tmp_path: Path, num_scalars: int, is_killed: bool
) -> None:
    """As of another rank, which logs no scalar, or of an evaluation that logs two."""
    path = write(tmp_path, 0, 12, begin=1_700_000_000)
    data, source = path.read_bytes(), RecordedSource("tensorboard", tmp_path)
    path.write_bytes(data[: len(data) // 2])
    source.poll()
    write(tmp_path, 0, 0, begin=1_700_000_000, process=0)
    write(tmp_path, 3, 3 + num_scalars, begin=1_700_000_003, process=2, tags=("val/loss",))
    source.poll()
    if is_killed:
        source.kill()
        source.poll()
    path.write_bytes(data)
    source.poll(final=True)
    assert [step for step, _ in source.values("loss")] == list(range(12))
    assert bool(source.values("held_out_loss")) == (num_scalars > 0)


@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("apart", [0, 100])
def test_of_processes_that_log_the_same_tag_the_newest_is_followed_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, apart: int, is_killed: bool
) -> None:
    """Ranks that all have a writer, or two runs, flush at moments of their own."""
    source = RecordedSource("tensorboard", tmp_path)
    for last in (20, 40, 60, 80):
        write(tmp_path, 0, last, begin=1_700_000_000, process=7)
        source.poll()
        if is_killed:
            source.kill()
        write(tmp_path, apart, apart + last, begin=1_700_000_001, process=3)
        source.poll()
    source.poll(final=True)
    assert [step for step, _ in source.rows] == [*range(20), *range(apart, apart + 80)]
    assert caplog.text.count("several processes log 'train/loss'") == (3 if is_killed else 1)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_process_that_has_ended_gives_its_tags_back_to_the_one_that_goes_on(tmp_path: Path, is_killed: bool) -> None:
    """Somebody has started a dry run into the folder of a training."""
    source = RecordedSource("tensorboard", tmp_path)
    write(tmp_path, 0, 20, begin=1_700_000_000, process=7)
    source.poll()
    write(tmp_path, 0, 1, begin=1_700_000_001, process=3)
    source.poll()
    for last in (1000, 3800, 3900):
        if is_killed:
            source.kill()
            source.poll()
        write(tmp_path, 0, last, begin=1_700_000_000, process=7)
        source.poll()
    source.poll(final=True)
    assert [step for step, _ in source.rows] == [*range(20), 0, *range(3602, 3900)]


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(1, 400), st.booleans()), max_size=25))
def test_each_row_is_recorded_once_however_the_files_grow(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, bool]]
) -> None:
    """Records come in random pieces, another process resumes the run, and the watcher is killed anywhere (True)."""
    folder = tmp_path_factory.mktemp("runs")
    files = [
        write(folder / "source", 0, 12, begin=1_700_000_000),
        write(folder / "source", 7, 20, begin=1_700_009_000, process=2, shift=0.5),
    ]
    whole = [row.step for row in rows(folder / "source")]
    target = folder / "target"
    target.mkdir()
    source = RecordedSource("tensorboard", target)
    pieces = iter(cuts)
    for path in files:
        data = path.read_bytes()
        while data:
            size, is_killed = next(pieces, (len(data), False))
            with (target / path.name).open("ab") as file:
                file.write(data[:size])
            data = data[size:]
            source.poll()
            if is_killed:
                source.kill()
    source.poll(final=True)
    assert [step for step, _ in source.rows] == whole
    assert all(len(values) == 2 for _, values in source.rows)
