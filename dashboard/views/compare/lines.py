"""The compared lines: live lines of runs and single segments, as the URL names them, with label and style. Pure."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dashboard import formatting
from dashboard.axes import XAxis
from dashboard.data.facts import RunFacts
from dashboard.figures.lines import LineStyle
from dashboard.figures.style import RUN_COLOURS
from db.models import Run
from lossguard.vocabulary.protocol import RUN_ID_PATTERN

MAX_LINES = 12
"""Per figure: readers cannot distinguish more."""
MAX_NAME_LENGTH = 40
_LINE_ID = re.compile(rf"({RUN_ID_PATTERN})(?::([0-9]{{1,9}}))?")


@dataclass(frozen=True, slots=True)
class LineId:
    """A run's live line, or one of its segments."""

    run: str
    segment: int | None = None

    def __str__(self) -> str:
        return self.run if self.segment is None else f"{self.run}:{self.segment}"


@dataclass(frozen=True, slots=True)
class ComparedLine:
    """A line that is in the store."""

    id: LineId
    facts: RunFacts
    label: str
    style: LineStyle


def parse_line_ids(text: str) -> list[LineId]:
    """The ids in "ID,ID:SEGMENT", each once; what is not a valid id is ignored."""
    matches = [_LINE_ID.fullmatch(part.strip()) for part in text.split(",")]
    ids = [LineId(match[1], None if match[2] is None else int(match[2])) for match in matches if match is not None]
    return list(dict.fromkeys(ids))


def compared_lines(found: Sequence[tuple[LineId, RunFacts]]) -> list[ComparedLine]:
    """Give each line a unique label and style."""
    names = run_names([facts.run for _, facts in found])
    lines = []
    for position, (line_id, facts) in enumerate(found):
        name = names[line_id.run]
        label = name if line_id.segment is None else f"{name}, segment {line_id.segment}"
        lines.append(ComparedLine(line_id, facts, label, line_style(position, label)))
    return lines


def run_names(runs: Sequence[Run]) -> dict[str, str]:
    """Return a short name by id, with the id added if several runs have the same name."""
    names = {run.id: _shortened(formatting.visible(run.name or run.id)) for run in runs}
    counts = Counter(names.values())
    return {run: name if counts[name] == 1 or name == run else f"{name} ({run})" for run, name in names.items()}


def runs_of(lines: Sequence[ComparedLine]) -> list[Run]:
    """The runs of these lines, each once."""
    return list({line.id.run: line.facts.run for line in lines}.values())


def has_x_axis(line: ComparedLine, x_axis: XAxis) -> bool:
    """True if the run has reported what that axis needs."""
    if x_axis is XAxis.STEP:
        return True
    has_tokens = "tokens" in line.facts.metrics
    return has_tokens and (x_axis is XAxis.TOKENS or line.facts.compute.parameters is not None)


def line_style(position: int, label: str) -> LineStyle:
    """Return a colour per position; the lines after the last colour are dashed."""
    color = RUN_COLOURS[position % len(RUN_COLOURS)]
    return LineStyle(
        name=label,
        color=color,
        width=1.8,
        note=f", {formatting.escape_plotly(label)}",
        dash="solid" if position < len(RUN_COLOURS) else "dash",
        cross_color=color,
        cross_height=0.95 - 0.05 * (position % len(RUN_COLOURS)),
    )


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 2].rstrip()}.."
