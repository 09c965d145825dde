"""Which files are not imported, and which come first where pytest-xdist gives whole files to several processes."""

import re
from collections import Counter
from collections.abc import Sequence

import pytest


def is_deselected(source: str, expression: str) -> bool:
    """True for a file that marks all its tests with a mark that the expression of `-m` excludes."""
    excluded = "|".join(re.findall(r"(?:^|\band )not (\w+)", expression))
    whole_file = rf"^pytestmark = (?:\[[^\]]*)?pytest\.mark\.(?:{excluded})\b"
    return bool(excluded) and " or " not in expression and re.search(whole_file, source, re.MULTILINE) is not None


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The files in descending order of how long they take, so that none of the long ones is the last to start."""
    seconds: Counter[str] = Counter()
    for item in items:
        seconds[_file(item)] += _seconds(item)  # type: ignore[assignment]
    return sorted(items, key=lambda item: (-seconds[_file(item)], _file(item)))


def _file(item: pytest.Item) -> str:
    return item.nodeid.split("::")[0]


def _seconds(item: pytest.Item) -> float:
    """About how long the test takes: `slow(60)` says so."""
    mark = item.get_closest_marker("slow")
    if mark is None:
        return 0.02
    return float(mark.args[0]) if mark.args else 1.0
