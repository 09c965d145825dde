"""Files that an attacker has made or damaged: only what lies in the folder is read, and an error is one sentence."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossguard.sources import formats
from lossguard.sources.columns import Columns
from lossguard.sources.files import source_files
from lossguard.sources.files.source_files import files_below, opened
from lossguard.sources.source_run import BadSource
from lossguard.vocabulary.errors import ConfigurationError
from tests.lossguard.sources.readers.hostile import MAKE, STEPS

FOLDERS = ("events.out.tfevents.1.h.1.0", "trainer_state.json")
"""Files of which not the file is the run, but its folder."""


@pytest.mark.parametrize("name", MAKE)
def test_a_link_out_of_the_folder_is_said_once_and_not_read(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, elsewhere = tmp_path / "runs", tmp_path / "private"
    folder.mkdir()
    elsewhere.mkdir()
    MAKE[name](elsewhere / name)
    (run,) = formats.runs_in(elsewhere)
    assert [row.step for row in run.rows()] == list(STEPS)
    (folder / name).symlink_to(elsewhere / name)
    (folder / f"b-{name}").symlink_to(elsewhere / name)
    with pytest.raises(BadSource, match="holds no run"):
        formats.runs_in(folder)
    assert [each.message.count("is not read, nor other links that lead out of") for each in caplog.records] == [1]
    assert formats.places_in(folder, None, Columns()) == []
    if name not in FOLDERS:
        (run,) = formats.runs_in(folder / name)  # whoever names a link means it
        assert len(list(run.rows())) == len(STEPS)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    MAKE["a.csv"](tmp_path / "deep" / "a.txt.bak")
    (tmp_path / "a.csv").symlink_to("deep/a.txt.bak")
    (run,) = formats.runs_in(tmp_path)
    assert len(list(run.rows())) == len(STEPS)


@pytest.mark.parametrize("part", ["params", "tags", "metrics", "params/key", "meta.yaml"])
def test_no_part_of_a_run_of_mlflow_is_a_link_to_elsewhere(tmp_path: Path, part: str) -> None:
    run, secret = tmp_path / "mlruns" / "0" / "abc", tmp_path / "secret"
    for name, text in {"params/lr": "0.1", "tags/team": "x", "metrics/loss": "1700000000000 1.5 0\n"}.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    (run / "meta.yaml").write_text("run_id: abc\nartifact_uri: x\nstatus: 3\n")
    (run.parent / "meta.yaml").write_text("name: gpt\n")
    (secret / "deep").mkdir(parents=True)
    (secret / "key").write_text("hunter2")
    place = run.parent / part if part == "meta.yaml" else run / part
    if place.is_dir():
        place.rename(tmp_path / "old")
    place.unlink(missing_ok=True)
    (secret / "meta.yaml").write_text("name: hunter2\n")
    place.symlink_to(secret / part if part == "meta.yaml" else secret / "key" if "/" in part else secret)
    (found,) = formats.runs_in(tmp_path / "mlruns")
    assert "hunter2" not in repr((found, list(found.rows())))


def test_pipes_devices_and_links_that_lead_in_a_circle_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    (tmp_path / "b.csv").symlink_to("/dev/zero")
    (tmp_path / "c.csv").symlink_to("d.csv")
    (tmp_path / "d.csv").symlink_to("c.csv")
    for path in (tmp_path, tmp_path / "a.csv", tmp_path / "b.csv"):
        with pytest.raises(BadSource, match="holds no run"):
            formats.runs_in(path)
    with pytest.raises(OSError, match="it is no regular file"):
        opened(tmp_path / "a.csv")


def test_a_folder_of_very_many_files_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"{number}.csv").touch()
    monkeypatch.setattr(source_files, "MAX_FILES", 3)
    assert len(files_below(tmp_path)) == 3
    monkeypatch.setattr(source_files, "MAX_FILES", 2)
    with pytest.raises(BadSource, match="holds more than 2 files: name the folders in it one by one"):
        formats.runs_in(tmp_path)


@pytest.mark.parametrize("name", MAKE)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_a_damaged_file_raises_nothing_but_one_sentence(
    tmp_path: Path, name: str, damage: list[tuple[int, bytes]]
) -> None:
    path = tmp_path / name
    path.unlink(missing_ok=True)
    MAKE[name](path)
    data = bytearray(path.read_bytes())
    for at, new in damage:
        at %= len(data)
        data[at : at + len(new)] = new
    path.write_bytes(data)
    with suppress(BadSource, ConfigurationError):
        for run in formats.runs_in(tmp_path):
            assert run.run_id
            list(run.rows())
