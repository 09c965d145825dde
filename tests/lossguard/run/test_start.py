"""lossguard.init: what it accepts, and what it records about the run."""

import fcntl
import math
import types
from pathlib import Path
from typing import Any

import pytest

import lossguard
from tests.lossguard.recorded import offline, records


def test_a_run_describes_itself_first(tmp_path: Path) -> None:
    with offline(tmp_path, name="first", config={"lr": 1e-3, "bad": math.nan, "path": tmp_path}, total_steps=9) as run:
        first = records(run)[0]["run"]
    assert (first["id"], first["name"], first["project"], first["total_steps"]) == (run.id, "first", "project", 9)
    assert first["config"] == {"lr": 1e-3, "bad": "NaN", "path": str(tmp_path)}
    assert first["versions"]["python"]


def test_the_configuration_may_be_a_namespace(tmp_path: Path) -> None:
    with offline(tmp_path, config=types.SimpleNamespace(lr=0.1)) as run:
        assert records(run)[0]["run"]["config"] == {"lr": 0.1}
    with pytest.raises(ValueError, match="config="):
        offline(tmp_path, config=3)


def test_tags_are_part_of_the_configuration(tmp_path: Path) -> None:
    with offline(tmp_path, config={"lr": 0.1}, tags=["sweep 3", "baseline", "sweep 3"]) as run:
        assert records(run)[0]["run"]["config"] == {"lr": 0.1, "tags": ["sweep 3", "baseline"]}
    with offline(tmp_path, config={"tags": ["mine"]}) as run:
        assert records(run)[0]["run"]["config"] == {"tags": ["mine"]}


@pytest.mark.parametrize("tags", ["one", [1], [""], ["a\n"], ["x"] * 33])
def test_tags_that_are_no_list_of_words_are_refused(tmp_path: Path, tags: Any) -> None:
    with pytest.raises(ValueError, match="must be a list of at most 32 texts"):
        offline(tmp_path, tags=tags)
    with pytest.raises(ValueError, match="use only one of them"):
        offline(tmp_path, tags=["a"], config={"tags": ["b"]})


def test_a_configuration_that_is_no_json_of_a_sane_size_is_one_sentence(tmp_path: Path) -> None:
    itself: dict[str, Any] = {}
    itself["self"] = itself
    for config, why in ((itself, "contains itself"), ({"text": "x" * (5 << 20)}, "takes 5242892 bytes")):
        with pytest.raises(lossguard.ConfigurationError, match=why):
            offline(tmp_path, config=config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "why"),
    [({"values": [0] * 20_000}, "20000 values"), ({"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}, "16 levels")],
)
def test_a_configuration_that_a_collector_would_refuse_is_one_sentence(tmp_path: Path, config: Any, why: str) -> None:
    with pytest.raises(lossguard.ConfigurationError, match=why):
        offline(tmp_path, config=config)
    assert not list(tmp_path.iterdir())


def test_a_bad_address_is_reported_at_init(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOSSGUARD_URL", "collector:8000")
    with pytest.raises(ValueError, match="LOSSGUARD_URL='collector:8000' is not the address of a collector"):
        lossguard.init("p", directory=tmp_path)


def test_online_without_an_address_is_reported_at_init(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="LOSSGUARD_URL"):
        lossguard.init("p", mode="online", directory=tmp_path)


@pytest.mark.parametrize("project", ["", "  ", "x" * 200, "a\tb", "\ud800"])
def test_a_project_needs_a_name(project: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="project="):
        lossguard.init(project, directory=tmp_path)


@pytest.mark.parametrize("run_id", ["../x", "a/b", ".hidden", "x" * 129])
def test_a_run_id_cannot_leave_its_folder(run_id: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run_id="):
        lossguard.init("p", run_id=run_id, directory=tmp_path)


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(lossguard.ConfigurationError, match="cannot be written"):
        lossguard.init("p", directory=tmp_path / "file")


def test_a_project_with_slashes_and_dots_stays_below_the_directory(tmp_path: Path) -> None:
    for project in ("a/b", "..", "."):
        run = lossguard.init(project, directory=tmp_path)
        assert run.directory is not None
        assert run.directory.parent.parent == tmp_path
        run.finish()


@pytest.mark.parametrize(
    "wrong",
    [{"name": "x" * 257}, {"name": 5}, {"name": "\ud800"}, {"total_steps": -5}, {"total_steps": 1.5}],
)
def test_what_the_collector_would_refuse_is_reported_at_init(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(lossguard.ConfigurationError, match=next(iter(wrong))):
        lossguard.init("p", directory=tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_another_process_uses_is_one_sentence_and_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with offline(tmp_path, run_id="r") as run:
        run.log(0, loss=1.0)
    assert run.directory is not None
    files = sorted(run.directory.iterdir())
    monkeypatch.setenv("LOSSGUARD_LOCK_WAIT", "0")
    with (run.directory / "lock").open("rb") as file:  # another open file is as another process
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(lossguard.ConfigurationError, match=r"is in use by process .* or use another run_id"):
            offline(tmp_path, run_id="r")
    assert sorted(run.directory.iterdir()) == files
    with offline(tmp_path, run_id="r") as run:
        assert run.history.num_segments == 1


def test_a_run_that_has_ended_leaves_its_folder_to_other_processes(tmp_path: Path) -> None:
    with offline(tmp_path, run_id="r") as run:
        pass
    assert run.directory is not None
    with (run.directory / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("policy", ["auto", [("mode", "auto")]])
def test_a_policy_that_no_collector_accepts_is_refused_before_the_first_step(tmp_path: Path, policy: Any) -> None:
    with pytest.raises(lossguard.ConfigurationError, match="policy="):
        lossguard.init("p", mode="offline", directory=tmp_path, policy=policy)
