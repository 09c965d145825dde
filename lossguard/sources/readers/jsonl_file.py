"""JSON lines: an object per line, with a step and numbers. Nested objects have names as in "train/loss"."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lossguard.sources.columns import Columns, Numbers, problem_of, step_of, time_of
from lossguard.sources.joining import Joiner
from lossguard.sources.readers.line_format import LineFollower, beginning, files_in, follower, stored
from lossguard.sources.rows import Row
from lossguard.sources.source_run import SourceRun
from lossguard.vocabulary.protocol import NON_FINITE
from lossguard.vocabulary.source_facts import SourceFacts

WHAT = "JSON lines with a step"
SUFFIXES = (".jsonl", ".ndjson", ".json")
MAX_DEPTH = 4


def flat(values: Mapping[str, Any], prefix: str = "", depth: int = 1) -> dict[str, Any]:
    """The values of nested objects under one name each."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and depth < MAX_DEPTH:
            found |= flat(value, f"{prefix}{name}/", depth + 1)
        elif not isinstance(value, list):
            found[prefix + name] = NON_FINITE.get(value, value) if isinstance(value, str) else value
    return found


class JsonlParser:
    ends = b"\n"
    facts = SourceFacts()
    problem = ""

    def __init__(self, columns: Columns = Columns()) -> None:  # noqa: B008 - frozen
        self._columns = columns
        self._numbers = Numbers()

    def parse(self, line: bytes) -> Row | None:
        self.problem = ""
        if not line.lstrip().startswith(b"{"):
            return None
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            self.problem = "it is no whole JSON object"
            return None
        values = flat(found)
        name = self._columns.step_in(values)
        if name is None:
            return None
        step, time_name = step_of(values[name]), self._columns.time_in(values)
        time = None if time_name is None else time_of(values[time_name])
        others = ((key, value) for key, value in values.items() if key not in (name, time_name))
        numbers, self.problem = self._numbers.taken(others)
        if step is None or not numbers:
            self.problem = problem_of(values, name)
            return None
        return Row(step, time, numbers)

    def begin_anew(self) -> None:
        return

    def is_whole(self, line: bytes) -> bool:
        return self.parse(line) is not None


def _first_row(path: Path, columns: Columns) -> bytes | None:
    parser = JsonlParser(columns)
    return next((line for line in beginning(path) if parser.parse(line) is not None), None)


def places_in(path: Path, columns: Columns = Columns()) -> Iterator[Path]:  # noqa: B008 - frozen
    """Such files at or below `path`."""
    return (file for file in files_in(path, SUFFIXES) if _first_row(file, columns) is not None)


def runs_in(path: Path, columns: Columns = Columns()) -> Iterator[SourceRun]:  # noqa: B008 - frozen
    for file in files_in(path, SUFFIXES):
        if (line := _first_row(file, columns)) is not None:
            yield stored(file, "jsonl", line, lambda: JsonlParser(columns))


def follow(path: Path, joiner: Joiner, columns: Columns = Columns()) -> LineFollower:  # noqa: B008 - frozen
    return follower(path, JsonlParser(columns), joiner)
