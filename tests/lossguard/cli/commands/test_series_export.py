import os
from pathlib import Path

import pytest

from lossguard import Client
from lossguard.__main__ import main
from tests.lossguard.cli.calls import Cli
from tests.lossguard.cli.small_runs import trained


def test_a_run_is_exported_as_the_name_of_the_file_says(
    collector_client: Client, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    trained(collector_client, "r")
    csv, parquet, unnamed = tmp_path / "r.csv", tmp_path / "r.parquet", tmp_path / "r"
    for file in (csv, parquet, unnamed):
        assert main(["export", "r", "-o", str(file)]) == 0
    assert len(csv.read_text().splitlines()) == 21
    assert parquet.read_bytes()[:4] == unnamed.read_bytes()[:4] == b"PAR1"
    capsysbinary.readouterr()
    assert main(["export", "r", "-o", "-", "--format", "csv"]) == 0
    assert capsysbinary.readouterr().out == csv.read_bytes()
    assert {path for path in tmp_path.iterdir() if path.name.startswith("r")} == {csv, parquet, unnamed}


def test_an_ending_of_no_format_is_refused_unless_the_format_is_given(
    collector_client: Client, tmp_path: Path, cli: Cli
) -> None:
    trained(collector_client, "r", 2)
    file = tmp_path / "r.xls"
    refused = f"lossguard: {file}: the file name must end in .parquet or .csv, or give --format\n"
    assert cli.fails(2, "export", "r", "-o", str(file)) == refused
    assert not file.exists()
    done = cli.json("export", "r", "-o", str(file), "--format", "csv")
    assert done == {"run": "r", "file": str(file), "format": "csv", "bytes": file.stat().st_size}


def test_a_file_that_cannot_be_written_is_one_sentence(collector_client: Client, tmp_path: Path, cli: Cli) -> None:
    trained(collector_client, "r", 2)
    cli.fails(2, "export", "r", "-o", "-", "--json")
    (tmp_path / "file").write_text("mine")
    for path, why in (
        ("no/r.csv", "No such file or directory"),
        ("file/r.csv", "Not a directory"),
        ("n" * 300, "File name too long"),
        (".", "Is a directory"),
    ):
        assert f"cannot be written: {why}" in cli.fails(1, "export", "r", "-o", str(tmp_path / path))
    assert [path.name for path in tmp_path.iterdir() if ".part" in path.name] == []


def test_a_pipe_or_a_device_is_written_to_and_never_replaced(collector_client: Client, tmp_path: Path) -> None:
    trained(collector_client, "r", 2)
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        assert main(["export", "r", "-o", str(pipe)]) == 0
        assert (reader.read(1 << 16) or b"").count(b"\n") == 3
    assert pipe.is_fifo()
