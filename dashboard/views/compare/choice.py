"""What is compared, and how it is looked at: ?runs=..&baseline=..&curves=..&x=..&smooth=.."""

from collections.abc import Sequence

import streamlit as st

from dashboard import formatting, url_state
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.held_out import HELD_OUT_DIFFERENCE, HELD_OUT_LOSS
from dashboard.figures.axis import XAxis
from dashboard.views.compare import entries
from dashboard.views.compare.entries import MOST, Choice, Entry
from dashboard.views.run.curves import SMOOTH, X_AXIS_NAMES, smooth_name
from db.models import Run
from lossguard.metrics import short_name

AXES = (XAxis.STEP, XAxis.TOKENS, XAxis.FLOPS)
USUAL = ("loss", HELD_OUT_LOSS, HELD_OUT_DIFFERENCE)
LAST = "last_compared"
"""In the session: the links on top of the page name no runs."""
RUNS, BASELINE = "compared", "baseline_of_compared"
"""Keys of the boxes. The URL holds ids, which no widget shows: they are kept in step here."""


def chosen(runs: Sequence[Run]) -> list[Entry]:
    """What the URL names, else what was compared last (the URL names it from then on), in a box that changes it."""
    wanted = url_state.choices()
    if wanted is None:
        wanted = st.session_state.get(LAST, [])
        if wanted:
            url_state.choose([str(choice) for choice in wanted])
    found: list[tuple[Choice, RunFacts]] = []
    for choice in wanted[:MOST]:
        facts = cached.facts(choice.run)
        if facts is not None and (choice.segment is None or choice.segment < len(facts.segments)):
            found.append((choice, facts))
        else:
            st.warning(not_there(choice, facts), icon=":material/search_off:")
    if len(wanted) > MOST:
        st.warning(f"The first {MOST} of {len(wanted)} are shown.", icon=":material/filter_list:")
    box(runs, found)
    st.session_state[LAST] = [choice for choice, _ in found]
    return entries.entries(found)


def not_there(choice: Choice, facts: RunFacts | None) -> str:
    if facts is None:
        return f"There is no run `{choice.run}` in this store."
    has = formatting.plural(len(facts.segments), "segment")
    return f"The run `{choice.run}` has {has}, and none with the number {choice.segment}."


def box(runs: Sequence[Run], found: Sequence[tuple[Choice, RunFacts]]) -> None:
    """Every run, and the segments of those that are chosen."""
    titles = {run.id: formatting.run_title(run) + (f" ({run.id})" if run.name else "") for run in runs}
    for choice, facts in found:
        titles.setdefault(choice.run, formatting.run_title(facts.run))
        if len(facts.segments) > 1:
            for segment in facts.segments:
                told = f"{segment.reason}, from step {formatting.count(segment.fork_step)}"
                titles[str(Choice(choice.run, segment.number))] = (
                    f"{titles[choice.run]}: segment {segment.number}, {told}"
                )
    _keep(RUNS, [str(choice) for choice, _ in found])
    st.multiselect(
        "Runs and segments",
        list(titles),
        format_func=titles.__getitem__,
        key=RUNS,
        max_selections=MOST,
        placeholder="Choose runs; the segments of a chosen run can be chosen too",
        on_change=lambda: url_state.choose(st.session_state[RUNS]),
    )


def wishes(made: Sequence[Entry]) -> tuple[list[str], XAxis, int, int]:
    """Curves, x axis, steps to smooth over, and the place of the baseline."""
    known = metrics(made)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        curves = st.multiselect(
            "Curves",
            known,
            default=[name for name in USUAL if name in known],
            format_func=short_name,
            key="curves",
            bind="query-params",
        )
        x_axis = st.segmented_control(
            "Along",
            AXES,
            default=XAxis.STEP,
            required=True,
            format_func=X_AXIS_NAMES.__getitem__,
            key="x",
            bind="query-params",
            on_change=lambda: url_state.choose_view(None),
        )
        smooth = st.selectbox(
            "Smooth over", SMOOTH, format_func=smooth_name, key="smooth", bind="query-params", width=130
        )
        place = baseline(made)
    return curves, x_axis, smooth, place


def metrics(made: Sequence[Entry]) -> list[str]:
    """What any of them reports, and the difference in held-out loss where two have one."""
    named = list(dict.fromkeys(name for entry in made for name in entry.facts.metrics))
    if sum(HELD_OUT_LOSS in entry.facts.metrics for entry in made) > 1:
        named.insert(named.index(HELD_OUT_LOSS) + 1, HELD_OUT_DIFFERENCE)
    return named


def baseline(made: Sequence[Entry]) -> int:
    """The one of the URL; the first where it names none of these."""
    labels = {str(entry.choice): entry.label for entry in made}
    wanted = url_state.baseline()
    _keep(BASELINE, wanted if wanted in labels else next(iter(labels)))
    picked = st.selectbox(
        "Baseline",
        list(labels),
        format_func=labels.__getitem__,
        key=BASELINE,
        width=220,
        on_change=lambda: url_state.choose_baseline(st.session_state[BASELINE]),
    )
    return list(labels).index(picked)


def _keep(key: str, value: object) -> None:
    """The URL decides what a box shows."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value
