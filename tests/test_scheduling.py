"""How the tests are shared among processes."""

import re
from pathlib import Path

import pytest

from tests.conftest import pytest_xdist_make_scheduler
from tests.scheduling import WholeFiles, is_all_slow, longest_first, unit


def test_a_file_is_a_unit_and_the_files_that_read_one_launch_of_ranks_are_one_together() -> None:
    assert unit("tests/test_loop.py::test_a[x::y]") == "tests/test_loop.py"
    folder = Path(__file__).parent / "ranks"
    launches = re.compile(r"^def test_\w+\([^)]*\b(results|two|four): ", re.MULTILINE)
    readers = {path.name for path in folder.glob("test_*.py") if launches.search(path.read_text(encoding="utf-8"))}
    assert len(readers) == 5
    assert {unit(f"tests/ranks/{name}::test_a") for name in readers} == {"tests/ranks"}
    assert unit("tests/ranks/test_trainer.py::test_a") == "tests/ranks/test_trainer.py"


def test_every_distributed_run_gives_whole_files_in_the_given_order(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fixture of a module that starts processes would else be made in every process."""
    monkeypatch.setattr(pytestconfig.option, "loadscopereorder", True)
    monkeypatch.setattr(pytestconfig.option, "tx", ["popen"])
    scheduler = pytest_xdist_make_scheduler(pytestconfig, None)
    assert isinstance(scheduler, WholeFiles)
    assert scheduler._split_scope("tests/test_loop.py::test_a") == "tests/test_loop.py"
    assert not pytestconfig.option.loadscopereorder


@pytest.mark.parametrize(
    "marks", ["pytest.mark.slow", "pytest.mark.slow(20)", '[pytest.mark.slow, pytest.mark.needs("x")]']
)
def test_a_file_of_slow_tests_alone_is_recognised(marks: str) -> None:
    assert is_all_slow(f"import os\n\npytestmark = {marks}\n")
    assert not is_all_slow(f"import os\n\n    pytestmark = {marks}\n@pytest.mark.slow\n")


def test_the_longest_file_comes_first_and_its_tests_stay_together_and_in_order() -> None:
    class Item:
        def __init__(self, nodeid: str, *seconds: float) -> None:
            self.nodeid, self.seconds = nodeid, seconds

        def get_closest_marker(self, name: str) -> pytest.Mark | None:
            return pytest.mark.slow(*self.seconds).mark if self.seconds else None

    items = [Item("a.py::1"), Item("b.py::1", 3.0), Item("a.py::2"), Item("c.py::1", 20.0), Item("b.py::2", 30.0)]
    assert [item.nodeid for item in longest_first(items)] == ["b.py::1", "b.py::2", "c.py::1", "a.py::1", "a.py::2"]  # type: ignore[arg-type]
