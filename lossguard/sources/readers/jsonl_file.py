"""JSON lines: an object per line, with a step and numbers. Nested objects have names as in "train/loss"."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from lossguard.sources.columns import Columns, Numbers, problem_of, step_of, time_of
from lossguard.sources.files.line_format import LineFormat
from lossguard.sources.rows import LineParser, Row
from lossguard.vocabulary.protocol import NON_FINITE

WHAT = "JSON lines with a step"
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


class JsonlParser(LineParser):
    def __init__(self, columns: Columns | None = None) -> None:
        self._columns = columns or Columns()
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

    def is_whole(self, line: bytes) -> bool:
        return self.parse(line) is not None


FORMAT = LineFormat("jsonl", (".jsonl", ".ndjson", ".json"), lambda columns: [partial(JsonlParser, columns)])
places_in, runs_in, follow = FORMAT.places_in, FORMAT.runs_in, FORMAT.follow
