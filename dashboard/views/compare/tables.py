"""What compared runs came to, and how their configurations differ: ?only=.."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from dashboard import formatting
from dashboard.data import cached, configurations, held_out
from dashboard.data.held_out import HELD_OUT_BITS_PER_BYTE, HELD_OUT_LOSS, Difference, HeldOutCurve
from dashboard.figures.axis import XAxis
from dashboard.views.compare import entries, standings, tokenizers
from dashboard.views.compare.entries import Entry
from dashboard.views.compare.standings import Standing

NO_LOSS = (
    "reported no held-out loss. The trainer measures one every `evaluate_every` steps; a loop of your own reports it "
    "with `run.log(step, .., held_out_loss=loss)`."
)
NO_BITS = (
    "reported no bits per byte (`held_out_bits_per_byte`: held-out loss / ln 2 / bytes per token). "
    "The trainer does where it knows the bytes per token: on text, or with `data.bytes_per_token`."
)
NOWHERE = Difference(np.empty(0), np.empty(0), True)


def show_standings(made: Sequence[Entry], x_axis: XAxis, baseline: int) -> None:
    """Perplexity beside bits per byte, with what keeps the one from being compared."""
    st.subheader("Held-out loss, perplexity, bits per byte", anchor=False)
    names = entries.run_names(entries.runs_of(made))
    warning = tokenizers.warning({names[run.id]: tokenizers.of(run.config) for run in entries.runs_of(made)})
    if warning is not None:
        st.warning(warning, icon=":material/translate:")
    rows = [standing(entry, made[baseline], x_axis) for entry in made]
    table = standings.table(rows, x_axis)
    right = st.column_config.Column(alignment="right")
    columns = {name: right for name in table.columns if name not in standings.TEXTS}
    st.dataframe(table, hide_index=True, key="standings", column_config=columns)
    for lacking, why in (
        ([each.label for each in rows if each.loss is None], NO_LOSS),
        ([each.label for each in rows if each.loss is not None and each.bits_per_byte is None], NO_BITS),
    ):
        if lacking:
            st.caption(f"{formatting.escape_markdown(', '.join(lacking))} {why}")
    if len(made) > 1:
        st.caption(how(made, x_axis))


def standing(entry: Entry, baseline: Entry, x_axis: XAxis) -> Standing:
    segment = entry.choice.segment
    return Standing(
        label=entry.label,
        loss=cached.latest_value(entry.facts, segment, HELD_OUT_LOSS),
        bits_per_byte=cached.latest_value(entry.facts, segment, HELD_OUT_BITS_PER_BYTE),
        vocabulary=tokenizers.of(entry.facts.run.config),
        difference=None if entry is baseline else difference(entry, baseline, x_axis),
    )


def difference(entry: Entry, baseline: Entry, x_axis: XAxis) -> Difference:
    if not (entries.lies_along(entry, x_axis) and entries.lies_along(baseline, x_axis)):
        return NOWHERE
    return held_out.difference(measured(entry, x_axis), measured(baseline, x_axis))


def measured(entry: Entry, x_axis: XAxis) -> HeldOutCurve:
    track = cached.line_curves(entry.facts, entry.choice.segment, (HELD_OUT_LOSS,), x_axis=x_axis)
    return HeldOutCurve.from_series(track.by_metric[HELD_OUT_LOSS], track.step_axis)


def how(made: Sequence[Entry], x_axis: XAxis) -> str:
    """How the difference is taken, and what may be in it beside the runs."""
    told = (
        f"Differences are taken at equal {standings.PLURAL[x_axis]}, here at the last place where both have been: "
        "where both were measured, or, where that is seldom, with the baseline's loss on the straight line between "
        "its two neighbouring measurements; never beyond the last one."
    )
    settings = configurations.side_by_side(entries.runs_of(made))
    others = [each.name for each in settings if each.differs and each.name in configurations.EVALUATION_SETTINGS]
    if others:
        listed = ", ".join(f"`{name}`" for name in others)
        told += f" These runs may have been measured on different text: they differ in {listed}."
    return told


def show_configurations(made: Sequence[Entry], baseline: int) -> None:
    st.subheader("Configurations", anchor=False)
    runs = entries.runs_of(made)
    if len(runs) < 2:
        st.caption("All of this is one run: it has one configuration, on its own page.")
        return
    settings = configurations.side_by_side(runs)
    differing = [each for each in settings if each.differs]
    only = st.toggle("Differences only", value=True, key="only", bind="query-params")
    st.caption(f"{len(differing)} of {formatting.plural(len(settings), 'setting')} differ.")
    shown = differing if only else settings
    if shown:
        place = [run.id for run in runs].index(made[baseline].choice.run)
        columns = list(entries.run_names(runs).values())
        mark, name = configurations.DIFFERENT, formatting.escape_markdown(columns[place])
        narrow = {mark: st.column_config.Column(width=44), "Setting": st.column_config.Column(width="medium")}
        table = configurations.table(shown, columns, place)
        st.dataframe(table, hide_index=True, width="stretch", key="configurations", column_config=narrow)
        st.caption(f"{mark} in the first column: not all have the same. {mark} before a value: not as {name} has it.")
