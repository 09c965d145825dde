"""Which tests share a process, and which files come first, where pytest-xdist runs the tests in several processes."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

SHARED = {
    f"tests/ranks/test_{name}.py": "tests/ranks"
    for name in ("agreement", "gating", "saving", "skipping", "token_means")
}
"""Files that read the results of one launch, and the name of the unit that they are."""


class WholeFiles(LoadScopeScheduling):  # type: ignore[misc]
    """Gives whole files to the processes, in the order of `longest_first`: a fixture of a module is made once."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def unit(nodeid: str) -> str:
    """The tests of a unit run in one process."""
    file = nodeid.split("::")[0]
    return SHARED.get(file, file)


def is_all_slow(source: str) -> bool:
    """Whether the file marks all its tests as slow."""
    return re.search(r"^pytestmark = \[?pytest\.mark\.slow\b", source, re.MULTILINE) is not None


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The units in descending order of how long they take, so that none of the long ones is the last to start."""
    seconds: Counter[str] = Counter()
    for item in items:
        seconds[unit(item.nodeid)] += _seconds(item)  # type: ignore[assignment]
    return sorted(items, key=lambda item: (-seconds[unit(item.nodeid)], unit(item.nodeid)))


def _seconds(item: pytest.Item) -> float:
    """About how long the test takes: `slow(60)` says so."""
    mark = item.get_closest_marker("slow")
    if mark is None:
        return 0.02
    return float(mark.args[0]) if mark.args else 1.0
