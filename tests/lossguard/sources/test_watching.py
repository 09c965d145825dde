"""`WatchedSource` in this process, offline: how it begins, ends and goes on. As a process: tests/lossguard/cli."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from lossguard.run.settings import Settings
from lossguard.sources import formats
from lossguard.sources.names import NameMap
from lossguard.sources.source_run import BadSource
from lossguard.sources.watching import WatchedSource
from lossguard.spool.history import read_spools
from lossguard.spool.spool import RecordWriter
from lossguard.vocabulary.errors import ConfigurationError
from tests.waiting import wait_for


def watch(folder: Path, path: Path, said: list[str] | None = None, **options: Any) -> WatchedSource:
    settings = Settings.read({}, mode="offline", directory=folder / "spools")
    say = ([] if said is None else said).append
    return WatchedSource(path=path, settings=settings, say=say, project="p", **{"names": NameMap(), **options})


def recorded(folder: Path) -> list[dict[str, Any]]:
    (run,) = (folder / "spools/p").iterdir()
    return [record for _, record in read_spools(run)]


def steps(folder: Path) -> list[int]:
    return [record["step"] for record in recorded(folder) if "metrics" in record]


def write(path: Path, first: int, last: int) -> None:
    with path.open("a") as file:
        file.writelines(f'{{"step": {step}, "train/loss": {5 - step / 100}}}\n' for step in range(first, last))


def test_it_reads_what_is_there_and_goes_on_there_the_next_time(tmp_path: Path) -> None:
    path, said = tmp_path / "log.jsonl", list[str]()
    write(path, 0, 5)
    watch(tmp_path, path, said, once=True).run()
    assert said[0].startswith(f"{path} (jsonl) is recorded as run {tmp_path.name}-log-")
    assert "train/loss" in said[1]
    write(path, 5, 7)
    watch(tmp_path, path, once=True).run()
    assert steps(tmp_path) == [0, 1, 2, 3, 4, 5, 6]
    assert [record["reason"] for record in recorded(tmp_path) if "segment" in record] == ["start", "resume"]
    assert [record["finish"] for record in recorded(tmp_path) if "finish" in record] == ["finished", "finished"]
    assert recorded(tmp_path)[0]["run"]["capabilities"] == []


def test_a_name_that_had_a_metric_keeps_it_when_the_watcher_begins_again(tmp_path: Path) -> None:
    """The last row of a Trainer has the mean loss of the whole training alone, which looks like a loss by itself."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "train_loss": 4.0}\n')
    watch(tmp_path, path, once=True).run()
    with path.open("a") as file:
        file.write('{"step": 3, "train_loss": 4.5}\n')
    watch(tmp_path, path, once=True).run()
    rows = [record["metrics"] for record in recorded(tmp_path) if "metrics" in record]
    assert rows == [{"loss": 2.5}, {"train_loss": 4.0}, {"train_loss": 4.5}]


@pytest.mark.parametrize(
    ("before", "after", "loss"),
    [({}, {"loss": "main"}, 7.0), ({"loss": "main"}, {}, 7.0), ({"loss": "main"}, {"loss": "other"}, 8.0)],
)
def test_a_watcher_that_begins_again_with_another_map_still_records_a_loss(
    tmp_path: Path, before: dict[str, str], after: dict[str, str], loss: float
) -> None:
    path = tmp_path / "log.jsonl"
    for step, overrides in enumerate((before, after)):
        with path.open("a") as file:
            file.write(f'{{"step": {step}, "train/loss": 6.0, "main": 7.0, "other": 8.0}}\n')
        watch(tmp_path, path, once=True, names=NameMap(overrides)).run()
    rows = [record["metrics"] for record in recorded(tmp_path) if "metrics" in record]
    assert (len(rows), rows[1]["loss"]) == (2, loss)


def test_what_was_followed_is_followed_again_though_another_format_has_come(tmp_path: Path) -> None:
    """A Trainer writes event files from the start, and trainer_state.json with its first checkpoint."""
    folder = tmp_path / "out"
    folder.mkdir()
    write(folder / "log.jsonl", 0, 3)
    watch(tmp_path, folder, once=True).run()
    (folder / "other.csv").write_text("step,loss\n0,1\n")
    write(folder / "log.jsonl", 3, 5)
    watch(tmp_path, folder, once=True).run()
    assert steps(tmp_path) == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_it_ends_when_nothing_has_come_for_so_long(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write(path, 0, 3)
    watch(tmp_path, path, until_idle=0.05).run()
    assert steps(tmp_path) == [0, 1, 2]
    assert recorded(tmp_path)[-1]["finish"] == "finished"


@pytest.mark.slow
def test_a_source_may_come_later_and_a_stop_leaves_the_run_interrupted(tmp_path: Path) -> None:
    path, said = tmp_path / "later/log.jsonl", list[str]()
    one = watch(tmp_path, path, said)
    thread = threading.Thread(target=one.run)
    thread.start()
    wait_for(lambda: said, seconds=60, what="that it waits")
    path.parent.mkdir()
    write(path, 0, 3)
    wait_for(lambda: one.num_rows == 3, seconds=60, what="the rows")
    one.stopping = True
    thread.join(60)
    assert said[0] == f"{path} holds no run yet; waiting for it"
    assert steps(tmp_path) == [0, 1, 2]
    assert recorded(tmp_path)[-1]["finish"] == "interrupted"


def test_a_run_id_that_would_leave_the_folder_of_the_project_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write(path, 0, 3)
    with pytest.raises(ConfigurationError, match=r"run_id='../x' must be 1 to 128 letters, digits, dots, dashes"):
        watch(tmp_path, path, once=True, run_id="../x").run()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.system
def test_another_run_that_comes_at_the_path_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossguard.sources.watching.OTHERS_SECONDS", 0.0)
    folder, said = tmp_path / "runs", list[str]()
    folder.mkdir()
    write(folder / "a.jsonl", 0, 3)
    watch(tmp_path, folder, said, once=True).run()
    write(folder / "b.jsonl", 0, 3)
    watch(tmp_path, folder, said, until_idle=1.0).run()
    assert [line for line in said if "which is not followed" in line] == [
        f"{folder} holds {folder}/b.jsonl too, which is not followed: watch it with a --run-id of its own"
    ]
    assert steps(tmp_path) == [0, 1, 2]


def test_several_runs_and_several_formats_are_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    write(folder / "a.jsonl", 0, 1)
    write(folder / "b.jsonl", 0, 1)
    with pytest.raises(ConfigurationError, match="holds 2 runs: name one of them"):
        watch(tmp_path, folder).run()
    (folder / "c.csv").write_text("step,loss\n0,1\n")
    with pytest.raises(ConfigurationError, match=r"choose one with --format csv\|jsonl"):
        watch(tmp_path, folder).run()


def test_two_runs_that_write_one_file_end_a_watch_and_an_import_with_a_sentence_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for step in range(30):
        write(path, step, step + 1)
        write(path, 500 + step, 501 + step)
    sentence = f"^{re.escape(str(path))}: two runs write it"
    with pytest.raises(BadSource, match=sentence):
        watch(tmp_path, path, once=True).run()
    assert recorded(tmp_path)[-1]["finish"] == "interrupted"
    (run,) = formats.runs_in(path)
    with pytest.raises(BadSource, match=sentence):
        list(run.rows())


def test_rows_that_a_full_disk_did_not_take_are_not_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = RecordWriter.close
    monkeypatch.setattr(RecordWriter, "close", lambda writer, timeout: close(writer, timeout) and False)
    write(tmp_path / "log.jsonl", 0, 5)
    one = watch(tmp_path, tmp_path / "log.jsonl", once=True)
    one.run()
    assert not one.is_delivered
