from pathlib import Path

import pytest

import lossguard
from lossguard.__main__ import main
from tests.lossguard.collectors import FakeCollector


def spool_offline(folder: Path) -> None:
    for run_id in ("a", "b"):
        with lossguard.init("project", run_id=run_id, mode="offline", directory=folder) as run:
            run.log(0, loss=1.0)


def test_sync_delivers_every_offline_run(
    collector: FakeCollector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool_offline(tmp_path)
    assert main(["sync", str(tmp_path), "--url", collector.url]) == 0
    assert set(collector.runs) == {"a", "b"}
    assert "2 of 2 runs delivered" in capsys.readouterr().out
    before = len(collector.requests)
    assert main(["sync", str(tmp_path), "--url", collector.url]) == 0
    assert len(collector.requests) == before


def test_sync_says_when_nobody_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lossguard.__main__.PATIENCE", 2)
    spool_offline(tmp_path)
    assert main(["sync", str(tmp_path), "--url", "http://127.0.0.1:9"]) == 1
    assert "no collector answers" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["sync", "/nonexistent", "--url", "http://h"], ["sync", "."], ["sync"]])
def test_sync_refuses_bad_arguments_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as exit:  # argparse's own
        code = int(exit.code or 0)
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err
