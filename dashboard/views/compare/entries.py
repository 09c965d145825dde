"""What is compared: live lines of runs and segments of them, as the URL names them, and how each looks. Pure."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dashboard import formatting
from dashboard.data import compute
from dashboard.data.facts import RunFacts
from dashboard.figures.axis import XAxis
from dashboard.figures.curves import LineStyle
from dashboard.figures.style import RUN_COLOURS
from db.models import Run

MOST = 12
"""Lines in one figure: more are told apart by nobody."""
NAME_LENGTH = 40
_CHOICE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127})(?::([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class Choice:
    """A run's live line, or one of its segments."""

    run: str
    segment: int | None = None

    def __str__(self) -> str:
        return self.run if self.segment is None else f"{self.run}:{self.segment}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A choice that is in the store."""

    choice: Choice
    facts: RunFacts
    label: str
    style: LineStyle


def choices(text: str) -> list[Choice]:
    """The choices that "ID,ID:SEGMENT" names, each once; what makes no sense is left out."""
    found = [_CHOICE.fullmatch(part.strip()) for part in text.split(",")]
    named = [Choice(each[1], None if each[2] is None else int(each[2])) for each in found if each is not None]
    return list(dict.fromkeys(named))


def entries(chosen: Sequence[tuple[Choice, RunFacts]]) -> list[Entry]:
    """With a name of its own and a colour for each; beyond the last colour they are dashed."""
    names = run_names([facts.run for _, facts in chosen])
    made = []
    for place, (choice, facts) in enumerate(chosen):
        label = names[choice.run] if choice.segment is None else f"{names[choice.run]}, segment {choice.segment}"
        made.append(Entry(choice, facts, label, style(place, label)))
    return made


def run_names(runs: Sequence[Run]) -> dict[str, str]:
    """Id -> a short name; with the id where several runs have the same one."""
    names = {run.id: _short(run.name or run.id) for run in runs}
    counted = Counter(names.values())
    return {run: name if counted[name] == 1 or name == run else f"{name} ({run})" for run, name in names.items()}


def runs_of(made: Sequence[Entry]) -> list[Run]:
    """The runs of these entries, each once."""
    return list({entry.choice.run: entry.facts.run for entry in made}.values())


def lies_along(entry: Entry, x_axis: XAxis) -> bool:
    """Whether the run tells what that axis counts."""
    if x_axis is XAxis.STEP:
        return True
    counted = "tokens" in entry.facts.metrics
    return counted and (x_axis is XAxis.TOKENS or compute.num_parameters(entry.facts.run.config) is not None)


def style(place: int, label: str) -> LineStyle:
    """Of the line at this place."""
    color = RUN_COLOURS[place % len(RUN_COLOURS)]
    return LineStyle(
        name=label,
        color=color,
        width=1.8,
        note=f", {formatting.escape_plotly(label)}",
        dash="solid" if place < len(RUN_COLOURS) else "dash",
        cross_color=color,
        cross_height=0.95 - 0.05 * (place % len(RUN_COLOURS)),
    )


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 2].rstrip()}.."
