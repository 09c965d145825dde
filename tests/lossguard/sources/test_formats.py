import os
from pathlib import Path

import pytest

from lossguard.sources import formats
from lossguard.sources.columns import Columns
from lossguard.sources.source_run import BadSource
from lossguard.vocabulary.errors import ConfigurationError


def test_a_format_is_found_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("step,loss\n0,1.0\n")
    (tmp_path / "notes.txt").write_text("nothing")
    (run,) = formats.runs_in(tmp_path)
    assert (run.format, run.name) == ("csv", "a")
    assert formats.places_in(tmp_path, None, Columns()) == [("csv", tmp_path / "a.csv")]


def test_two_formats_are_one_sentence_that_names_the_choice(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("step,loss\n0,1.0\n")
    (tmp_path / "b.jsonl").write_text('{"step": 0, "loss": 1.0}\n')
    with pytest.raises(ConfigurationError, match=r"choose one with --format csv\|jsonl, or name"):
        formats.runs_in(tmp_path)
    (run,) = formats.runs_in(tmp_path, "jsonl")
    assert run.format == "jsonl"


RUBBISH = {"a.csv": b"", "a.jsonl": b"hello\n", "a.log": b"\x89PNG\r\n\x1a\n\0", "a.bin": b"\xff" * 5000}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(RUBBISH[name])
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(BadSource, match="holds no run to read as csv, jsonl, "):
            formats.runs_in(path)


def test_a_path_that_may_not_be_read_is_not_said_to_hold_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(BadSource, match=r"^/.* cannot be read \(Permission denied\)$"):
        formats.runs_in(tmp_path)


def test_a_path_that_is_not_there_and_an_unknown_format_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing does not exist"):
        formats.runs_in(tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match="must be one of csv"):
        formats.check("xml", formats.FORMATS)


def test_whoever_names_columns_means_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,loss\n0,1.0\n")
    (run,) = formats.runs_in(tmp_path, layout=Columns("n"))
    assert [row.step for row in run.rows()] == [0]
