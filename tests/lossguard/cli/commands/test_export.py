import json
import os
from pathlib import Path

import pytest

from lossguard import Client
from lossguard.__main__ import main
from tests.lossguard.cli.small_runs import trained


def test_a_run_is_exported_as_the_name_of_the_file_says(
    collector_client: Client, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    trained(collector_client, "r")
    csv, parquet = tmp_path / "r.csv", tmp_path / "r.parquet"
    assert main(["export", "r", "-o", str(csv), "--json"]) == 0
    done = json.loads(capsysbinary.readouterr().out)
    assert done == {"run": "r", "file": str(csv), "format": "csv", "bytes": csv.stat().st_size}
    assert len(csv.read_text().splitlines()) == 21
    assert main(["export", "r", "-o", str(parquet)]) == 0
    assert parquet.read_bytes()[:4] == b"PAR1"
    capsysbinary.readouterr()
    assert main(["export", "r", "-o", "-", "--format", "csv"]) == 0
    assert capsysbinary.readouterr().out == csv.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("r.")) == ["r.csv", "r.parquet"]


def test_an_ending_of_no_format_is_refused_unless_the_format_is_given(
    collector_client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(collector_client, "r", 2)
    file = tmp_path / "r.xls"
    assert main(["export", "r", "-o", str(file)]) == 2
    refused = f"lossguard: {file}: the file name must end in .parquet or .csv, or give --format\n"
    assert capsys.readouterr().err == refused
    assert not file.exists()
    assert main(["export", "r", "-o", str(file), "--format", "csv"]) == 0
    assert main(["export", "r", "-o", str(tmp_path / "r")]) == 0
    assert (tmp_path / "r").read_bytes()[:4] == b"PAR1"


def test_a_file_that_cannot_be_written_is_one_sentence(
    collector_client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(collector_client, "r", 2)
    assert main(["export", "r", "-o", str(tmp_path / "no" / "r.csv")]) == 1
    assert "r.csv cannot be written: No such file or directory" in capsys.readouterr().err
    assert main(["export", "r", "-o", "-", "--json"]) == 2
    (tmp_path / "file").write_text("mine")
    for path, why in (("file/r.csv", "Not a directory"), ("n" * 300, "File name too long"), (".", "Is a directory")):
        assert main(["export", "r", "-o", str(tmp_path / path)]) == 1
        assert f"cannot be written: {why}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if ".part" in path.name] == []


def test_a_pipe_or_a_device_is_written_to_and_never_replaced(collector_client: Client, tmp_path: Path) -> None:
    trained(collector_client, "r", 2)
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        assert main(["export", "r", "-o", str(pipe)]) == 0
        assert (reader.read(1 << 16) or b"").count(b"\n") == 3
    assert pipe.is_fifo()
