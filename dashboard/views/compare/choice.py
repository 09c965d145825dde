"""What is compared, and how it is looked at: ?runs=..&baseline=..&curves=..&x=..&smooth=.."""

from collections.abc import Sequence

import streamlit as st

from dashboard import formatting, url_state
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.held_out import DIFFERENCE, LOSS
from dashboard.figures.axis import Along
from dashboard.views.compare import entries
from dashboard.views.compare.entries import MOST, Choice, Entry
from dashboard.views.run.curves import ALONG, SMOOTH, smooth_name
from db.models import Run

AXES = (Along.STEP, Along.TOKENS, Along.FLOPS)
USUAL = ("loss", LOSS, DIFFERENCE)
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
        known = cached.facts(choice.run)
        if known is not None and (choice.segment is None or choice.segment < len(known.segments)):
            found.append((choice, known))
        else:
            st.warning(not_there(choice, known), icon=":material/search_off:")
    if len(wanted) > MOST:
        st.warning(f"The first {MOST} of {len(wanted)} are shown.", icon=":material/filter_list:")
    box(runs, found)
    st.session_state[LAST] = [choice for choice, _ in found]
    return entries.entries(found)


def not_there(choice: Choice, known: RunFacts | None) -> str:
    if known is None:
        return f"There is no run `{choice.run}` in this store."
    has = formatting.plural(len(known.segments), "segment")
    return f"The run `{choice.run}` has {has}, and none with the number {choice.segment}."


def box(runs: Sequence[Run], found: Sequence[tuple[Choice, RunFacts]]) -> None:
    """Every run, and the segments of those that are chosen."""
    titles = {run.id: formatting.run_title(run) + (f" ({run.id})" if run.name else "") for run in runs}
    for choice, known in found:
        titles.setdefault(choice.run, formatting.run_title(known.run))
        if len(known.segments) > 1:
            for segment in known.segments:
                told = f"{segment.reason}, from step {formatting.steps(segment.fork_step)}"
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


def wishes(made: Sequence[Entry]) -> tuple[list[str], Along, int, int]:
    """Curves, x axis, steps to smooth over, and the place of the baseline."""
    known = metrics(made)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        curves = st.multiselect(
            "Curves",
            known,
            default=[name for name in USUAL if name in known],
            format_func=formatting.metric_name,
            key="curves",
            bind="query-params",
        )
        along = st.segmented_control(
            "Along",
            AXES,
            default=Along.STEP,
            required=True,
            format_func=ALONG.__getitem__,
            key="x",
            bind="query-params",
            on_change=lambda: url_state.choose_view(None),
        )
        smooth = st.selectbox(
            "Smooth over", SMOOTH, format_func=smooth_name, key="smooth", bind="query-params", width=130
        )
        place = baseline(made)
    return curves, along, smooth, place


def metrics(made: Sequence[Entry]) -> list[str]:
    """What any of them reports, and the difference in held-out loss where two have one."""
    named = list(dict.fromkeys(name for entry in made for name in entry.known.metrics))
    if sum(LOSS in entry.known.metrics for entry in made) > 1:
        named.insert(named.index(LOSS) + 1, DIFFERENCE)
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
