"""The tables of the Compare page: results, and how the configurations differ: ?only=.."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import formatting
from dashboard.axes import XAxis
from dashboard.data import cached
from dashboard.data.comparison import configurations, held_out
from dashboard.data.comparison.configurations import Vocabulary
from dashboard.data.comparison.held_out import (
    HELD_OUT_BITS_PER_BYTE,
    HELD_OUT_LOSS,
    HELD_OUT_LOSS_SE,
    Difference,
    HeldOutCurve,
)
from dashboard.data.facts import LatestValue
from dashboard.views.compare import controls
from dashboard.views.compare.controls import ComparedLine
from dashboard.views.compare.figure import UnreadableLine, Warnings, reading
from dashboard.views.table import show_table

PLURAL_UNITS = {XAxis.STEP: "steps", XAxis.TOKENS: "tokens", XAxis.FLOPS: "FLOPs"}
UNITS = {XAxis.STEP: "step", XAxis.TOKENS: "tokens", XAxis.FLOPS: "FLOPs"}

RUN, VOCABULARY, METHOD = "Run", "Tokenizer, vocabulary", "Compared"
TEXT_COLUMNS = (RUN, VOCABULARY, METHOD)

MAX_EXP = 700.0
"""exp of a larger loss is infinite in double precision."""

MAX_WITH_DECIMALS = 1e6


@dataclass(frozen=True, slots=True)
class LineResult:
    label: str
    loss: LatestValue | None
    """Held-out, in nats per token."""
    standard_error: LatestValue | None
    """Standard error of `loss`."""
    bits_per_byte: LatestValue | None
    vocabulary: Vocabulary
    difference: Difference | None
    """Difference from the baseline; None for the baseline itself."""


def result_table(results: Sequence[LineResult], x_axis: XAxis) -> pd.DataFrame:
    return pd.DataFrame(
        {
            RUN: each.label,
            "Held-out loss": _value(each.loss) + _error(each),
            "Perplexity": perplexity(each.loss),
            "Bits per byte": _value(each.bits_per_byte),
            "After step": "-" if each.loss is None else formatting.count(each.loss.step),
            VOCABULARY: str(each.vocabulary),
            "Minus baseline": _difference_text(each.difference),
            f"At {UNITS[x_axis]}": _position(each.difference, x_axis),
            METHOD: _method(each.difference),
        }
        for each in results
    )


def perplexity(loss: LatestValue | None) -> str:
    """exp(loss) of the same measurement."""
    if loss is None:
        return "-"
    return formatting.number(math.inf if loss.value >= MAX_EXP else math.exp(loss.value))


def _value(latest: LatestValue | None) -> str:
    return "-" if latest is None else _four_decimals(latest.value)


def _error(result: LineResult) -> str:
    """The standard error, if it is of the same measurement."""
    loss, error = result.loss, result.standard_error
    if loss is None or error is None or loss.step != error.step or not math.isfinite(error.value):
        return ""
    return f" \N{PLUS-MINUS SIGN} {_four_decimals(error.value)}"


def _four_decimals(value: float) -> str:
    """Format a usual loss with four decimals; a huge one with the digits that there is room for."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.4f}" if abs(value) < MAX_WITH_DECIMALS else formatting.number(value)


def _difference_text(difference: Difference | None) -> str:
    if difference is None:
        return "baseline"
    if not len(difference.y):
        return "-"
    last = float(difference.y[-1])
    return f"+{_four_decimals(last)}" if 0 <= last < math.inf else _four_decimals(last)


def _position(difference: Difference | None, x_axis: XAxis) -> str:
    """Return the position of the last difference."""
    if difference is None or not len(difference.x):
        return "-"
    position = float(difference.x[-1])
    match x_axis:
        case XAxis.FLOPS:
            return f"{position:.3e}"
        case XAxis.TOKENS:
            return formatting.abbreviated(position)
        case _:
            return formatting.count(round(position))


def _method(difference: Difference | None) -> str:
    if difference is None:
        return ""
    if not len(difference.x):
        return "no common point"
    return "both measured" if difference.exact else "baseline interpolated"


NO_LOSS = (
    "reported no held-out loss. The trainer measures it every `evaluate_every` steps. From your own loop, report it "
    "with `run.log(step, .., held_out_loss=loss)`."
)
NO_BITS = (
    "reported no bits per byte (`held_out_bits_per_byte`: held-out loss / ln 2 / bytes per token). The trainer reports "
    "them where it knows the bytes per token: on text, or with `data.bytes_per_token`."
)
NO_DIFFERENCE = Difference(np.empty(0), np.empty(0), True)


def show_results(compared: Sequence[ComparedLine], x_axis: XAxis, baseline: int, warnings: Warnings) -> None:
    st.subheader("Held-out loss, perplexity, bits per byte", anchor=False)
    runs = controls.runs_of(compared)
    names = controls.run_names(runs)
    warning = configurations.tokenizer_warning(
        {names[run.id]: configurations.vocabulary_of(run.config) for run in runs}
    )
    if warning is not None:
        st.warning(warning, icon=":material/translate:")
    rows = []
    for line in compared:
        try:
            rows.append(line_result(line, compared[baseline], x_axis))
        except UnreadableLine as error:
            warnings.show(error)
    if not rows:
        return
    table = result_table(rows, x_axis)
    show_table(table, key="results", numbers=set(table.columns) - set(TEXT_COLUMNS))
    show_missing(rows)
    if len(compared) > 1:
        st.caption(method(compared, x_axis))


def line_result(line: ComparedLine, baseline: ComparedLine, x_axis: XAxis) -> LineResult:
    """Raises UnreadableLine."""
    segment = line.id.segment
    with reading(line):
        loss, error, bits = (
            cached.latest_value(line.facts, segment, name)
            for name in (HELD_OUT_LOSS, HELD_OUT_LOSS_SE, HELD_OUT_BITS_PER_BYTE)
        )
    return LineResult(
        label=line.label,
        loss=loss,
        standard_error=error,
        bits_per_byte=bits,
        vocabulary=configurations.vocabulary_of(line.facts.run.config),
        difference=None if line is baseline else difference(line, baseline, x_axis),
    )


def difference(line: ComparedLine, baseline: ComparedLine, x_axis: XAxis) -> Difference:
    if not (controls.has_x_axis(line, x_axis) and controls.has_x_axis(baseline, x_axis)):
        return NO_DIFFERENCE
    curve = held_out_curve(line, x_axis)
    try:
        return held_out.difference(curve, held_out_curve(baseline, x_axis))
    except UnreadableLine:  # the row of the baseline says so
        return NO_DIFFERENCE


def held_out_curve(line: ComparedLine, x_axis: XAxis) -> HeldOutCurve:
    """Raises UnreadableLine."""
    with reading(line):
        curves = cached.line_curves(line.facts, line.id.segment, (HELD_OUT_LOSS,), x_axis=x_axis)
    return HeldOutCurve.from_series(curves.by_metric[HELD_OUT_LOSS], curves.step_axis)


def show_missing(rows: Sequence[LineResult]) -> None:
    """Say which lines have no held-out loss or no bits per byte, and how to report them."""
    without_loss = [each.label for each in rows if each.loss is None]
    without_bits = [each.label for each in rows if each.loss is not None and each.bits_per_byte is None]
    for labels, help_text in ((without_loss, NO_LOSS), (without_bits, NO_BITS)):
        if labels:
            st.caption(f"{formatting.escape_markdown(', '.join(labels))} {help_text}")


def method(compared: Sequence[ComparedLine], x_axis: XAxis) -> str:
    """Describe how the differences are taken, and which settings may distort them."""
    text = (
        f"Differences are taken at equal {PLURAL_UNITS[x_axis]}; the table shows the last one. Where the runs "
        "were rarely measured at the same point, the baseline's loss is interpolated linearly between its neighbouring "
        "measurements, never extrapolated."
    )
    settings = configurations.side_by_side(controls.runs_of(compared))
    if configurations.shares_evaluation_set(settings):
        text += (
            " All were evaluated on the same windows. The standard error of a held-out loss is over documents; the "
            "errors of two runs rise and fall together, so that their difference is more certain than either loss."
        )
    differing = configurations.evaluation_differences(settings)
    if differing:
        names = ", ".join(f"`{name}`" for name in differing)
        text += f" These runs may have been evaluated on different text: they differ in {names}."
    return text


def show_configurations(compared: Sequence[ComparedLine], baseline: int) -> None:
    st.subheader("Configurations", anchor=False)
    runs = controls.runs_of(compared)
    if len(runs) < 2:
        st.caption("All lines belong to one run. Its page shows the configuration.")
        return
    settings = configurations.side_by_side(runs)
    differing = [each for each in settings if each.differs]
    only = st.toggle("Differences only", value=True, key="only", bind="query-params")
    st.caption(f"{len(differing)} of {formatting.plural(len(settings), 'setting')} differ.")
    shown = differing if only else settings
    if shown:
        position = [run.id for run in runs].index(compared[baseline].id.run)
        columns = list(controls.run_names(runs).values())
        mark, name = configurations.DIFFERENT, formatting.escape_markdown(columns[position])
        narrow = {mark: st.column_config.Column(width=44), "Setting": st.column_config.Column(width="medium")}
        table = configurations.table(shown, columns, position)
        st.dataframe(table, hide_index=True, width="stretch", key="configurations", column_config=narrow)
        st.caption(
            f"{mark} in the first column: the setting differs between runs. "
            f"{mark} before a value: it differs from {name}."
        )
