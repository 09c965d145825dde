"""`lossguard sync`, and `lossguard trim` of what it has delivered."""

import errno
import fcntl
import re
from pathlib import Path

import pytest

import lossguard
from lossguard.cli.arguments import parser_of
from lossguard.spool.folders import LOCK_FILE
from lossguard.spool.lines import to_line
from tests.lossguard.cli.calls import Cli
from tests.lossguard.collectors import FakeCollector


@pytest.fixture
def spools(tmp_path: Path) -> Path:
    """Two runs that were recorded offline."""
    for run_id in ("a", "b"):
        with lossguard.init("project", run_id=run_id, mode="offline", directory=tmp_path) as run:
            run.log(0, loss=1.0)
    return tmp_path


def test_sync_delivers_every_offline_run_once(collector: FakeCollector, spools: Path, cli: Cli) -> None:
    assert "2 of 2 runs delivered" in cli("sync", str(spools), "--url", collector.url)
    assert set(collector.runs) == {"a", "b"}
    before = len(collector.requests)
    done = cli.json("sync", str(spools), "--url", collector.url)
    assert (done["delivered"], [(run["delivered"], run["left"]) for run in done["runs"]]) == (2, [(True, None)] * 2)
    assert len(collector.requests) == before


@pytest.mark.parametrize("place", [".", "project", "project/a"])
def test_sync_names_the_launch_whose_killed_launcher_has_left_steps(
    collector: FakeCollector, spools: Path, cli: Cli, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = spools / ".launch" / "a"
    launch.mkdir(parents=True)
    journal = launch / "0.journal"
    journal.write_text('{"step": 1, "time": 1.5, "values": {"loss": 2.5}, "tracker": "wandb"}\n')
    sync = ("sync", str(spools / place), "--url", collector.url)
    remedy = f"LOSSGUARD_DIR={spools} lossguard launch --run-id a [the same options] -- COMMAND\n"
    assert remedy in cli.fails(1, *sync)
    assert remedy in cli.fails(1, "sync", str(spools / ".launch"), *sync[2:]), "without a spool beside it"
    with (launch / LOCK_FILE).open("w") as file:  # as its launcher holds it
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "delivered completely" in cli(*sync)

    def no_locks(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    with monkeypatch.context() as patched:  # nobody knows whether its launcher runs
        patched.setattr("lossguard.spool.folders.lock_file", no_locks)
        assert "delivered completely" in cli(*sync)
    journal.write_text('{"script_reports": 4711}\n' + journal.read_text())
    assert "delivered completely" in cli(*sync)


@pytest.mark.slow
def test_sync_reports_that_no_collector_answers(spools: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossguard.cli.commands.spools.MAX_FAILURES", 2)
    assert "no collector answers" in cli.fails(1, "sync", str(spools), "--url", "http://127.0.0.1:9")


@pytest.mark.parametrize("arguments", [["sync", "/nonexistent", "--url", "http://h"], ["sync", "."], ["sync"]])
def test_sync_refuses_bad_arguments_with_code_2(arguments: list[str], cli: Cli) -> None:
    assert "Traceback" not in cli.fails(2, *arguments)


def test_a_collector_that_was_restored_from_a_backup_is_brought_up_from_the_spools(
    collector: FakeCollector, tmp_path: Path, cli: Cli
) -> None:
    """Steps that were delivered after the backup lie in the spool still."""
    with lossguard.init("project", run_id="a", url=collector.url, directory=tmp_path) as run:
        for step in range(20):
            run.log(step, loss=1.0)
    assert len(collector.rows) == 20
    collector.rows = {key: row for key, row in collector.rows.items() if key[1] < 12}
    delivered = cli("sync", str(tmp_path), "--url", collector.url)
    assert "a: delivered before (once more with --again)\n" in delivered
    assert len(collector.rows) == 12
    cli("trim", str(tmp_path))
    assert "a: delivered\n" in cli("sync", str(tmp_path), "--url", collector.url, "--again")
    assert sorted(step for _, step in collector.rows) == list(range(20))


def test_sync_names_what_is_damaged_and_says_so_again_the_next_time(
    collector: FakeCollector, spools: Path, cli: Cli
) -> None:
    spool = next(spools.glob("project/a/*.spool"))
    spool.write_bytes(spool.read_bytes().replace(b'"loss":1.0', b'"loss":9.0'))
    for _ in range(2):
        output = cli.fails(1, "sync", str(spools), "--url", collector.url)
        assert "delivered, except" in output
        assert f"of {spool.name} (the checksum of a line is wrong)" in output
        assert "1 of 2 runs delivered completely" in output
    assert collector.finished == ["finished", "finished"]


def test_sync_counts_the_lines_that_the_collector_rejects(collector: FakeCollector, spools: Path, cli: Cli) -> None:
    collector.fault = lambda method, path, body: (422, {}) if path.endswith("reports") else None
    rejected = cli.fails(1, "sync", str(spools), "--url", collector.url)
    assert "1 line that the collector rejected" in rejected


PRE_RELEASE = b'{"run":{"id":"r","project":"p","config":{}}}\n{"segment":0,"fork_step":0}\n'
LATER = to_line({"run": {"id": "r", "project": "p", "config": {}}, "version": 2})


@pytest.mark.parametrize(("content", "of"), [(PRE_RELEASE, "a pre-release"), (LATER, r"another version \(2\)")])
def test_a_spool_of_another_version_is_refused_in_one_sentence_and_left_untouched(
    collector: FakeCollector, tmp_path: Path, cli: Cli, content: bytes, of: str
) -> None:
    spool = tmp_path / "p" / "r" / f"{1:022x}.spool"
    spool.parent.mkdir(parents=True)
    spool.write_bytes(content)
    sentence = f"is a spool of {of}, and this one reads version 1: deliver it with what wrote it"
    with pytest.raises(lossguard.ConfigurationError, match=sentence):
        lossguard.init("p", run_id="r", mode="offline", directory=tmp_path)
    assert re.search(sentence, cli.fails(1, "sync", str(tmp_path), "--url", collector.url))
    assert collector.runs == {}
    assert (spool.read_bytes(), [path.name for path in spool.parent.glob("*.spool*")]) == (content, [spool.name])


def test_trim_compresses_what_is_delivered_and_restore_undoes_it(
    collector: FakeCollector, spools: Path, cli: Cli
) -> None:
    assert "0 delivered spools trimmed" in cli("trim", str(spools))
    cli("sync", str(spools), "--url", collector.url)
    contents = {path: path.read_bytes() for path in spools.rglob("*.spool")}
    assert "2 delivered spools trimmed from" in cli("trim", str(spools))
    assert not list(spools.rglob("*.spool"))
    cli("sync", str(spools), "--url", collector.url)  # nothing is left to deliver
    assert cli.json("trim", str(spools), "--restore") == {"restored": 2}
    assert {path: path.read_bytes() for path in spools.rglob("*.spool")} == contents


@pytest.mark.parametrize("command", [["trim"], ["trim", "--restore"]])
def test_an_output_that_nobody_reads_is_no_failure_to_trim(
    spools: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    def closed(*_arguments: object, **_options: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    options = parser_of(["trim"]).parse_args([*command, str(spools)])
    monkeypatch.setattr("builtins.print", closed)
    with pytest.raises(BrokenPipeError):
        options.run(options)
