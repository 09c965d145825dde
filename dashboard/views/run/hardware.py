"""The hardware of a run's machines: what they did, and their errors."""

import streamlit as st

from dashboard import clock, formatting
from dashboard.data import hardware
from dashboard.data.facts import RunFacts
from dashboard.figures import component
from dashboard.figures.hardware import hardware_figure
from lossguard.vocabulary.hardware import describe_errors

MAX_ERRORS = 20
"""The newest errors, which are listed."""


def show(facts: RunFacts) -> None:
    """Show the hardware; nothing for a run without samples."""
    samples = hardware.samples(facts)
    if not samples:
        return
    st.subheader("Hardware", anchor=False)
    zone = clock.zone(st.context.timezone)
    errors = [sample for sample in samples if sample.num_errors]
    lines = []
    for sample in errors[::-1][:MAX_ERRORS]:
        step = "before the first step" if sample.step is None else f"by step {sample.step:,}"
        where = f"{describe_errors(sample.readings)} of {sample.device} on {sample.host}"
        lines.append(f"{where}, {step} ({clock.moment(sample.time, zone)})")
    if lines:
        st.markdown(formatting.bullet_list(lines))
    figure = hardware_figure(samples, zone, revision=f"hardware-{facts.run.id}")
    if figure is not None:
        component.show(figure, key=f"hardware-{facts.run.id}", label="Hardware of the run")
