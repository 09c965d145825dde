import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import lossguard
from lossguard.__main__ import main
from lossguard.spool.lines import to_line
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


@pytest.mark.slow
def test_sync_reports_that_no_collector_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool_offline(tmp_path)
    monkeypatch.setattr("lossguard.cli.commands.sync.MAX_FAILURES", 2)
    assert main(["sync", str(tmp_path), "--url", "http://127.0.0.1:9"]) == 1
    assert "no collector answers" in capsys.readouterr().out


def test_sync_and_trim_print_json_for_scripts(
    collector: FakeCollector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool_offline(tmp_path)
    assert main(["sync", str(tmp_path), "--url", collector.url, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["delivered"], [(run["delivered"], run["left"]) for run in done["runs"]]) == (2, [(True, None)] * 2)
    assert main(["trim", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spools"] == 2
    assert main(["trim", str(tmp_path), "--restore", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"restored": 2}
    assert main(["sync", str(tmp_path / "nowhere"), "--url", collector.url, "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["exit_code"] == 2


def test_a_launched_command_does_not_wait_for_the_commands_that_ask_a_collector() -> None:
    code = "import sys; from lossguard.cli.arguments import parser_of; parser_of(['launch']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"urllib3", "lossguard.client.client", "lossguard.cli.connection"} & set(done.stdout.split())


@pytest.mark.parametrize("arguments", [["sync", "/nonexistent", "--url", "http://h"], ["sync", "."], ["sync"]])
def test_sync_refuses_bad_arguments_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as exit:  # argparse's own
        code = int(exit.code or 0)
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_collector_that_was_restored_from_a_backup_is_brought_up_from_the_spools(
    collector: FakeCollector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps that were delivered after the backup lie in the spool still."""
    with lossguard.init("project", run_id="a", url=collector.url, directory=tmp_path) as run:
        for step in range(20):
            run.log(step, loss=1.0)
    assert len(collector.rows) == 20
    collector.rows = {key: row for key, row in collector.rows.items() if key[1] < 12}
    assert main(["sync", str(tmp_path), "--url", collector.url]) == 0
    assert "a: delivered before (once more with --again)\n" in capsys.readouterr().out
    assert len(collector.rows) == 12
    assert main(["trim", str(tmp_path)]) == 0
    assert main(["sync", str(tmp_path), "--url", collector.url, "--again"]) == 0
    assert "a: delivered\n" in capsys.readouterr().out
    assert sorted(step for _, step in collector.rows) == list(range(20))


def test_sync_names_what_is_damaged_and_says_so_again_the_next_time(
    collector: FakeCollector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool_offline(tmp_path)
    spool = next(tmp_path.glob("project/a/*.spool"))
    spool.write_bytes(spool.read_bytes().replace(b'"loss":1.0', b'"loss":9.0'))
    for _ in range(2):
        assert main(["sync", str(tmp_path), "--url", collector.url]) == 1
        output = capsys.readouterr().out
        assert "delivered, except" in output
        assert f"of {spool.name} (the checksum of a line is wrong)" in output
        assert "1 of 2 runs delivered completely" in output
    assert collector.finished == ["finished", "finished"]


def test_sync_counts_the_lines_that_the_collector_rejects(
    collector: FakeCollector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool_offline(tmp_path)
    collector.fault = lambda method, path, body: (422, {}) if path.endswith("reports") else None
    assert main(["sync", str(tmp_path), "--url", collector.url]) == 1
    assert "1 line that the collector rejected" in capsys.readouterr().out


def test_trim_compresses_what_is_delivered_and_restore_undoes_it(
    collector: FakeCollector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool_offline(tmp_path)
    assert main(["trim", str(tmp_path)]) == 0
    assert "0 delivered spools trimmed" in capsys.readouterr().out
    assert main(["sync", str(tmp_path), "--url", collector.url]) == 0
    contents = {path: path.read_bytes() for path in tmp_path.rglob("*.spool")}
    assert main(["trim", str(tmp_path)]) == 0
    assert "2 delivered spools trimmed from" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.spool"))
    assert main(["sync", str(tmp_path), "--url", collector.url]) == 0, "nothing is left to deliver"
    assert main(["trim", str(tmp_path), "--restore"]) == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.spool")} == contents


def test_sync_refuses_an_address_with_a_password_without_showing_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool_offline(tmp_path)
    assert main(["sync", str(tmp_path), "--url", "http://ada:Zq81xYvL@127.0.0.1:9"]) == 2
    assert "LOSSGUARD_TOKEN" in (error := capsys.readouterr().err)
    assert "Zq81xYvL" not in error


def test_without_a_command_the_help_is_printed_and_the_version_can_be_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert "list the runs of a collector" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"lossguard {metadata.version('lossguard')}\n")


def test_sync_without_a_collector_names_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOSSGUARD_URL", raising=False)
    assert main(["sync", str(tmp_path)]) == 2
    assert "give its address with --url, or set LOSSGUARD_URL" in capsys.readouterr().err


PRE_RELEASE = b'{"run":{"id":"r","project":"p","config":{}}}\n{"segment":0,"fork_step":0}\n'
LATER = to_line({"run": {"id": "r", "project": "p", "config": {}}, "version": 2})


@pytest.mark.parametrize(("content", "of"), [(PRE_RELEASE, "a pre-release"), (LATER, r"another version \(2\)")])
def test_a_spool_of_another_version_is_refused_in_one_sentence_and_left_untouched(
    collector: FakeCollector, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, of: str
) -> None:
    spool = tmp_path / "p" / "r" / f"{1:022x}.spool"
    spool.parent.mkdir(parents=True)
    spool.write_bytes(content)
    sentence = f"is a spool of {of}, and this one reads version 1: deliver it with what wrote it"
    with pytest.raises(lossguard.ConfigurationError, match=sentence):
        lossguard.init("p", run_id="r", mode="offline", directory=tmp_path)
    assert main(["sync", str(tmp_path), "--url", collector.url]) == 1
    assert re.search(sentence, capsys.readouterr().out)
    assert collector.runs == {}
    assert (spool.read_bytes(), [path.name for path in spool.parent.glob("*.spool*")]) == (content, [spool.name])
