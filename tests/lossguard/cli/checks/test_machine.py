import errno
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import lossguard
from lossguard.cli.checks.check import Check
from lossguard.cli.checks.machine import checks
from lossguard.run.settings import Settings


def look(directory: Path, **environment: str) -> dict[str, Check]:
    return {each.name: each for each in checks(Settings.read({}, directory=directory), environment)}


class Usage(NamedTuple):
    free: int


@pytest.mark.parametrize(("free", "state"), [(1 << 40, "ok"), (1 << 30, "warning"), (1 << 20, "problem")])
def test_a_disk_that_is_almost_full_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free))
    assert look(tmp_path)["disk"].state == state


def test_a_folder_that_is_a_file_is_a_problem_and_one_that_can_be_made_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert look(tmp_path / "file" / "spools")["folder"].state == "problem"
    assert look(tmp_path / "new" / "spools")["folder"].sentence.endswith("spools can be made")
    assert not (tmp_path / "new").exists()


def test_spools_that_wait_limits_and_stopped_runs_are_named(tmp_path: Path) -> None:
    with lossguard.init("project", run_id="r1", mode="offline", directory=tmp_path) as run:
        run.log(0, loss=1.0)
    (tmp_path / "project" / "r1" / "limits").write_text("max_depth=ten")
    (tmp_path / "project" / "r1" / "no-orders").write_text("")
    found = look(tmp_path, LOSSGUARD_ORDER_KEY="short")
    assert "of the run r1 wait for delivery" in found["spools"].sentence
    assert found["spools"].mend.endswith(f"lossguard sync {tmp_path}")
    assert (found["limits"].state, found["orders"].state, found["order key"].state) == ("problem", "warning", "problem")


def refused(*_arguments: object, **_options: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def refuse_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other files can be read: the look at PyTorch reads some."""
    read_text = Path.read_text

    def read(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name == "limits":
            refused()
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read)


def test_a_file_of_limits_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "limits").write_text("max_depth=10")
    refuse_limits(monkeypatch)
    assert look(tmp_path)["limits"].sentence == f"{tmp_path / 'limits'} cannot be read (Permission denied)"


def test_a_folder_below_one_that_this_user_may_not_search_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat, access = os.stat, os.access
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(
        os, "stat", lambda path, **more: refused() if closed in Path(path).parents else stat(path, **more)
    )
    monkeypatch.setattr(os, "access", lambda path, how: path != closed and access(path, how))
    found = look(closed / "spools" / "runs")
    assert (found["folder"].state, found["folder"].sentence) == ("problem", f"this user cannot write in {closed}")
