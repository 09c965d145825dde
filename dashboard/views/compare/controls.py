"""The compared lines, which are live lines of runs and single segments, and the controls of the comparison.

In the URL: ?runs=ID,ID:SEGMENT&baseline=..&curves=..&x=..&smooth=..&log=..&linear=..&fit-all=..
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard import formatting, url_state
from dashboard.axes import AxisChoices, XAxis
from dashboard.data import cached
from dashboard.data.comparison.held_out import HELD_OUT_DIFFERENCE, HELD_OUT_LOSS
from dashboard.data.facts import RunFacts
from dashboard.data.store import StepsUnreadable
from dashboard.figures.lines import LineStyle
from dashboard.figures.style import RUN_COLOURS
from dashboard.views import chart, frame, run_picker
from db.models import Run
from lossguard.vocabulary.protocol import RUN_ID_PATTERN

X_AXES = (XAxis.STEP, XAxis.TOKENS, XAxis.FLOPS)
DEFAULT_METRICS = ("loss", HELD_OUT_LOSS, HELD_OUT_DIFFERENCE)
LAST_COMPARED = "last_compared"
"""Key in the session: the lines compared last. The links at the top of the page name no runs."""
FIGURE = "figure-compare"
"""Key of the chart."""
LINES, BASELINE = "compared", "baseline_of_compared"
"""Keys of the widgets. Their labels are not ids, so they cannot write themselves into the URL as others do."""
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


@dataclass(frozen=True, slots=True)
class CompareOptions:
    metrics: list[str]
    x_axis: XAxis
    smooth: int
    """Steps; 0 for no smoothing."""
    baseline: int
    """Position of the line that the others are compared with."""
    axes: AxisChoices


def select_lines() -> list[ComparedLine]:
    """The lines of the URL, else those compared last (the URL names them from then on), with a box to change them."""
    found = existing(selected_ids())
    with st.container(horizontal=True, vertical_alignment="bottom"):
        runs = run_picker.offered_runs(key="find-compared")
        show_line_selector(runs, found)
    st.session_state[LAST_COMPARED] = [line_id for line_id, _ in found]
    return compared_lines(found)


def selected_ids() -> list[LineId]:
    text = url_state.text("runs")
    if text is not None:
        return parse_line_ids(text)
    ids: list[LineId] = st.session_state.get(LAST_COMPARED, [])
    if ids:
        st.query_params["runs"] = ",".join(map(str, ids))
    return ids


def existing(ids: Sequence[LineId]) -> list[tuple[LineId, RunFacts]]:
    """Return the lines that are in the store, with a warning for each of the others."""
    found = []
    for line_id in ids[:MAX_LINES]:
        try:
            facts = cached.facts(line_id.run)
        except StepsUnreadable as error:
            frame.warn_unavailable(error, what=f"`{line_id.run}` is not shown. ")
            continue
        if facts is not None and (line_id.segment is None or line_id.segment < len(facts.segments)):
            found.append((line_id, facts))
        else:
            message = f"There is no run `{line_id.run}` in this store."
            if facts is not None:
                count = formatting.plural(len(facts.segments), "segment")
                message = f"Run `{line_id.run}` has no segment {line_id.segment}: it has {count}."
            st.warning(message, icon=":material/search_off:")
    if len(ids) > MAX_LINES:
        st.warning(f"Only the first {MAX_LINES} of {len(ids)} are shown.", icon=":material/filter_list:")
    return found


def show_line_selector(runs: Sequence[Run], found: Sequence[tuple[LineId, RunFacts]]) -> None:
    """Some runs, and the selected ones with their segments."""
    labels = {run.id: formatting.run_label(run) for run in runs}
    for line_id, facts in found:
        labels.setdefault(line_id.run, formatting.run_title(facts.run))
        if len(facts.segments) > 1:
            for segment in facts.segments:
                start = f"{segment.reason}, from step {formatting.count(segment.fork_step)}"
                label = f"{labels[line_id.run]}: segment {segment.number}, {start}"
                labels[str(LineId(line_id.run, segment.number))] = label
    chart.set_widget(LINES, [str(line_id) for line_id, _ in found])
    st.multiselect(
        "Runs and segments",
        list(labels),
        format_func=labels.__getitem__,
        key=LINES,
        max_selections=MAX_LINES,
        placeholder="Choose runs, then any of their segments",
        on_change=lambda: url_state.set_texts("runs", [",".join(st.session_state[LINES])]),
    )


def compare_options(compared: Sequence[ComparedLine]) -> CompareOptions:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        metrics = chart.metric_selector(available_metrics(compared), DEFAULT_METRICS)
        return CompareOptions(
            metrics=metrics,
            x_axis=chart.x_axis_selector(X_AXES, on_change=show_all),
            smooth=chart.smoothing_selector(),
            baseline=baseline_selector(compared),
            axes=axis_choices([name for name in metrics if name != HELD_OUT_DIFFERENCE]),
        )


def axis_choices(metrics: Sequence[str]) -> AxisChoices:
    popover = st.popover("Axes", icon=":material/straighten:", key="axes", on_change="rerun")
    with popover:
        return chart.axis_choices(metrics, shown=bool(popover.open))


def show_all() -> None:
    """The range in view means nothing on another x axis."""
    chart.forget_view(FIGURE)
    url_state.set_view(None)


def available_metrics(compared: Sequence[ComparedLine]) -> list[str]:
    """Return all metrics that any line reports, and the difference in held-out loss if two report one."""
    metrics = list(dict.fromkeys(name for line in compared for name in line.facts.metrics))
    if sum(HELD_OUT_LOSS in line.facts.metrics for line in compared) > 1:
        metrics.insert(metrics.index(HELD_OUT_LOSS) + 1, HELD_OUT_DIFFERENCE)
    return metrics


def baseline_selector(compared: Sequence[ComparedLine]) -> int:
    """Position of the baseline: the line of the URL, else the first one."""
    labels = {str(line.id): line.label for line in compared}
    named = url_state.text("baseline")
    chart.set_widget(BASELINE, named if named in labels else next(iter(labels)))
    selected = st.selectbox(
        "Baseline",
        list(labels),
        format_func=labels.__getitem__,
        key=BASELINE,
        width=220,
        on_change=lambda: url_state.set_texts("baseline", [st.session_state[BASELINE]]),
    )
    return list(labels).index(selected)
