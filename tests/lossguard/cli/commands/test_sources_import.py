"""`lossguard import` as a user calls it, against a small collector."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lossguard import Client
from lossguard.__main__ import main
from lossguard.cli.commands import sources
from lossguard.run.settings import Settings
from lossguard.vocabulary.protocol import IMPORTED
from tests.lossguard.cli.calls import Cli
from tests.lossguard.collectors import FakeCollector
from tests.lossguard.sources.readers.hostile import wandb_log, wandb_record
from tests.reliability.collector import CollectorProcess

CSV = "step,train/loss\n" + "".join(f"{step},{5 - step / 100}\n" for step in range(20))


@pytest.fixture(autouse=True)
def spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOSSGUARD_DIR", str(tmp_path / "spools"))
    return tmp_path / "spools"


def stored(folder: Path, *names: str) -> str:
    """The folder of runs with these names."""
    for name in names:
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "metrics.csv").write_text(CSV)
    return str(folder / "runs")


def table(folder: Path, text: str) -> str:
    (folder / "old.csv").write_text(text)
    return str(folder / "old.csv")


def test_a_folder_of_runs_is_imported_and_delivered(collector: FakeCollector, tmp_path: Path, cli: Cli) -> None:
    command = ["import", stored(tmp_path, "a", "b"), "--project", "old", "--url", collector.url]
    assert "2 of 2 runs imported" in cli(*command)
    names = [(run["name"], run["project"]) for run in collector.runs.values()]
    assert names == [("a/metrics", "old"), ("b/metrics", "old")]
    assert all(run["capabilities"] == [IMPORTED] for run in collector.runs.values())
    assert collector.finished == ["finished", "finished"]
    num_requests = len(collector.requests)
    assert "nothing new" in cli(*command)
    done = cli.json(*command)
    assert (done["imported"], done["unreadable_paths"]) == (2, 0)
    rows = [(run["run"], run["new_rows"], run["known_rows"]) for run in done["runs"]]
    assert rows == [(run_id, 0, 20) for run_id in collector.runs]
    assert len(collector.requests) == num_requests


def test_offline_it_writes_spools_that_sync_delivers(
    collector: FakeCollector, tmp_path: Path, spools: Path, cli: Cli
) -> None:
    out = cli("import", stored(tmp_path, "a"), "--name", "x", "--offline", "--url", collector.url)
    assert "deliver it with: lossguard sync" in out
    assert "  train/loss          loss             5  4.81    20" in out.splitlines()
    assert not collector.requests
    cli("sync", str(spools), "--url", collector.url)
    assert [run["name"] for run in collector.runs.values()] == ["x"]
    assert sorted(collector.losses(0)) == list(range(20))


def test_a_bad_path_is_one_sentence_and_the_others_are_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["import", str(tmp_path / "empty"), stored(tmp_path, "a"), str(tmp_path / "nothing")]) == 1
    shown = capsys.readouterr()
    assert "1 of 3 runs imported" in shown.out
    first, second = shown.err.splitlines()
    assert first.startswith(f"lossguard: {tmp_path}/empty holds no run to read as csv")
    assert second == f"lossguard: {tmp_path}/nothing does not exist"


def test_a_name_of_map_that_is_nowhere_records_nothing_and_the_right_one_is_imported_then(
    tmp_path: Path, spools: Path, cli: Cli
) -> None:
    path = table(tmp_path, "step,ce,lr\n0,5.0,1e-3\n1,4.9,1e-3\n")
    sentence = f"lossguard: {path} has no 'train/ce', which --map names for loss; names there: ce, lr\n"
    assert cli.fails(1, "import", path, "--map", "loss=train/ce") == sentence
    assert not spools.exists()
    assert "  ce                  loss " in cli("import", path, "--map", "loss=ce")
    assert "has no 'train/ce', which --map names for loss" in cli.fails(1, "import", path, "--map", "loss=train/ce")


def test_a_run_id_that_would_leave_the_folder_of_the_project_is_refused(tmp_path: Path, cli: Cli) -> None:
    runs, before = stored(tmp_path, "a"), set(tmp_path.rglob("*"))
    said = cli.fails(1, "import", runs, "--run-id", "../../x")
    assert "run_id='../../x' must be 1 to 128 letters, digits, dots, dashes" in said
    assert set(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_written_names_each_way_to_choose_another(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "file").touch()
    said = cli.fails(1, "import", stored(tmp_path, "a"), "--directory", str(tmp_path / "file"))
    ways = "choose another directory with LOSSGUARD_DIR, directory= or --directory"
    assert said.endswith(f"cannot be written (Not a directory): {ways}\n")


def test_times_of_another_column_are_not_ignored_in_silence_where_the_rows_are_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path, "step,when,loss\n0,1767225600,5.0\n")
    kept = f"lossguard: {path}: rows that are recorded keep their times; --run-id NEW imports all anew\n"
    when = ["--time", "when"]
    for options, said in (([], ""), (when, kept), ([*when, "--run-id", "again"], "")):
        assert main(["import", path, *options]) == 0
        assert capsys.readouterr().err == said


def test_a_table_without_a_column_of_steps_names_the_option_that_gives_it(tmp_path: Path, cli: Cli) -> None:
    path = table(tmp_path, "n,loss\n0,5.0\n")
    found = f"{path} holds no run to read as csv, jsonl; --step names the column of steps of a table"
    assert cli.fails(1, "import", path, "--step", "k") == f"lossguard: {found}\n"
    cli("import", path, "--step", "n")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--format", "xml"], "must be one of"),
        (["--project", "\n"], "printable"),
        (["--run-id", "x"], "are for one run, and 2 were found"),
    ],
)
def test_invalid_arguments_have_code_2(tmp_path: Path, more: list[str], words: str, cli: Cli) -> None:
    assert words in cli.fails(2, "import", stored(tmp_path, "a", "b"), *more)


@pytest.fixture
def real_collector(tmp_path: Path) -> Iterator[CollectorProcess]:
    process = CollectorProcess(f"sqlite:///{tmp_path}/collector.db", tmp_path / "collector.log")
    process.start()
    try:
        process.wait_until_up()
        yield process
    finally:
        process.kill()


@pytest.mark.system
def test_incidents_of_the_past_are_there_and_importing_elsewhere_changes_nothing(
    real_collector: CollectorProcess, tmp_path: Path, cli: Cli
) -> None:
    noise = random.Random(1)
    losses = [3 + noise.gauss(0, 0.03) + (4 * 0.95 ** (step - 600) if step >= 600 else 0) for step in range(800)]
    rows = [f"{step},{loss},{1.7e9 + step}" for step, loss in enumerate(losses)]
    path = table(tmp_path, "\n".join(["step,train/loss,time", *rows]) + "\n")
    with Client(real_collector.url) as client:
        seen = []
        for folder in ("here", "elsewhere"):
            cli("import", path, "--directory", str(tmp_path / folder), "--url", real_collector.url)
            (run,) = client.get("/runs")
            seen.append((client.get(f"/runs/{run['id']}")["segments"], client.get(f"/runs/{run['id']}/incidents")))
    (segments, incidents), again = seen
    assert (run["state"], run["started_at"], run["name"]) == ("finished", 1.7e9, "old")
    assert [segment["num_steps"] for segment in segments] == [800]
    assert [(incident["kind"], incident["onset_step"]) for incident in incidents] == [("loss_spike", 600)]
    assert again == (segments, incidents)


def test_ctrl_c_ends_an_import_with_its_own_exit_code_and_says_how_to_go_on(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "_import", interrupt)
    error = json.loads(cli.fails(130, "import", stored(tmp_path, "a"), "--offline", "--json"))
    assert error == {"error": "stopped; the same command goes on where it was", "exit_code": 130}


@pytest.mark.parametrize("pattern", [[], ["--pattern", r"(?P<step>\d+) (?P<loss>\S+)"]])
def test_the_hardware_of_this_machine_is_not_recorded_with_a_run_of_the_past(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, pattern: list[str]
) -> None:
    given: list[Settings] = []

    def note(_stored: object, _options: object, settings: Settings, *_: object, **__: object) -> dict[str, bool]:
        given.append(settings)
        return {"imported": True}

    monkeypatch.setattr(sources, "_import", note)
    (tmp_path / "train.log").write_text("0 5.0\n")
    table(tmp_path, "step,loss\n0,5.0\n")
    cli("import", str(tmp_path), *pattern)
    assert [settings.hardware_interval for settings in given] == [None]


def test_a_log_that_only_a_pattern_describes_is_imported(collector: FakeCollector, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "train.log").write_text("at 3 loss=2.5\nat 4 loss=2.25\n")
    command = ["import", str(tmp_path), "--url", collector.url]
    cli.fails(1, *command)
    cli(*command, "--pattern", r"at (?P<step>\d+) loss=(?P<loss>\S+)")
    assert [metrics["loss"] for metrics in collector.rows.values()] == [2.5, 2.25]


SMALL_LIMIT = """
import sys
from lossguard.__main__ import main
from lossguard.cli.commands import sources
sources.MAX_BYTES = 64 << 20
sys.exit(main())
"""


@pytest.mark.system
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts this memory")
@pytest.mark.parametrize("command", [["import"], ["watch", "--once"]])
def test_a_source_that_takes_too_much_memory_is_one_sentence(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "trainer_state.json").write_text('{"log_history": [' + "[]," * 3_000_000 + "[]]}")
    arguments = [*command, str(tmp_path / "trainer_state.json"), "--offline", "--format", "trainer_state"]
    done = subprocess.run([sys.executable, "-c", SMALL_LIMIT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "of memory: import a part of it" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_files_that_each_start_of_a_wandb_run_has_written_are_one_run(
    collector: FakeCollector, tmp_path: Path, cli: Cli
) -> None:
    """A job that was preempted, with WANDB_RUN_ID set: the second start repeats its steps since the checkpoint."""
    for folder, losses in (("offline-run-1-r", {0: 3.0, 1: 2.0, 2: 1.5}), ("offline-run-2-r", {1: 2.25, 2: 1.75})):
        (tmp_path / folder).mkdir()
        steps = [wandb_record(step, loss=str(loss)) for step, loss in losses.items()]
        (tmp_path / folder / "run-r.wandb").write_bytes(wandb_log([wandb_record(), *steps]))
    paths = [str(tmp_path / "offline-run-1-r"), str(tmp_path / "offline-run-2-r")]
    command = ["import", *paths, "--url", collector.url]
    (imported,) = cli.json(*command)["runs"]
    assert (imported["new_rows"], imported["known_rows"]) == (5, 0)
    assert [each["fork_step"] for each in collector.segments] == [0, 1]
    assert collector.losses(1) == {1: 2.25, 2: 1.75}
    assert cli.json(*command)["runs"][0]["new_rows"] == 0
