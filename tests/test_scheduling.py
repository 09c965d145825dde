"""Which test files are imported, and in which order."""

import pytest

from tests.scheduling import is_deselected, longest_first


@pytest.mark.parametrize(
    ("marks", "tier", "fast"),
    [
        ("pytest.mark.slow", False, True),
        ("pytest.mark.system", True, True),
        ("[pytest.mark.slow(20), pytest.mark.system]", True, True),
        ('[\n    pytest.mark.needs("x"),\n    pytest.mark.system,\n]', True, True),
        ("pytest.mark.usefixtures('slow')", False, False),
    ],
)
def test_a_file_whose_tests_are_all_deselected_is_recognised(marks: str, tier: bool, fast: bool) -> None:
    source = f"import os\n\npytestmark = {marks}\n"
    assert is_deselected(source, "not system") == tier
    assert is_deselected(source, "not slow and not needs and not system") == fast
    for expression in ("", "system", "slow", "not slow or not system"):
        assert not is_deselected(source, expression)
    assert not is_deselected(f"import os\n\n    pytestmark = {marks}\n@pytest.mark.system\n", "not slow and not system")


def test_the_longest_file_comes_first_and_its_tests_stay_together_and_in_order() -> None:
    class Item:
        def __init__(self, nodeid: str, *seconds: float) -> None:
            self.nodeid, self.seconds = nodeid, seconds

        def get_closest_marker(self, name: str) -> pytest.Mark | None:
            return pytest.mark.slow(*self.seconds).mark if self.seconds else None

    items = [Item("a.py::1"), Item("b.py::1", 3.0), Item("a.py::2"), Item("c.py::1", 20.0), Item("b.py::2", 30.0)]
    assert [item.nodeid for item in longest_first(items)] == ["b.py::1", "b.py::2", "c.py::1", "a.py::1", "a.py::2"]  # type: ignore[arg-type]
