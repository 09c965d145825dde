"""Trainer lab: what the lab of the reference trainer measured, as tables and plots.

In the URL: ?results=..
"""

from functools import partial

import streamlit as st

from dashboard.data.trainer import lab_results_file
from dashboard.data.trainer.lab_results_file import LabResultsError
from dashboard.figures import component
from dashboard.figures.component import cached_figure
from dashboard.views import frame
from dashboard.views.table import show_table
from dashboard.views.trainer_lab import tables
from dashboard.views.trainer_lab.sections import Section, sections
from dashboard.views.upload import uploaded
from db.cli.command_engine import as_typed_here

INTRODUCTION = (
    "`python -m trainer lab` trains small models that differ in one setting, over several seeds. Numbers are means "
    "\N{PLUS-MINUS SIGN} standard errors over the seeds, losses in nats per token. `docs/lesson.md` says what they "
    "mean. The command below a table measures the same; results do not hold options such as `--steps` and `--data`."
)
SHIPPED, FILE = "Of docs/lesson.md", "A JSONL file"
NOT_INSTALLED = f'The results of `docs/lesson.md` are not installed here. Choose "{FILE}" for results of your own.'
FILE_HELP = as_typed_here(
    "The output of `python -m trainer lab .. --json`; a file may hold several sweeps, one after the other."
)


def page() -> None:
    st.title("Trainer lab", anchor=False)
    st.caption(as_typed_here(INTRODUCTION))
    source = st.segmented_control(
        "Results", [SHIPPED, FILE], default=SHIPPED, required=True, key="results", bind="query-params"
    )
    if source == SHIPPED:
        results = lab_results_file.shipped()
        if results is None:
            st.info(NOT_INSTALLED, icon=":material/info:")
    else:
        read = lab_results_file.parse
        results = uploaded("Results", "jsonl", key="lab-results", help=FILE_HELP, read=read, error=LabResultsError)
    if results is not None:
        for section in sections(results):
            show(section, results.key)


def show(section: Section, results_key: str) -> None:
    st.subheader(section.title, anchor=False)
    for plot in section.plots:
        st.markdown(plot.sentence)
        packed = cached_figure(("trainer-lab", plot.name, results_key), partial(plot.make, section.runs))
        component.show(packed, key=f"trainer-lab-{plot.name}-{results_key[:8]}", label=plot.sentence)
    table = section.table(section.runs)
    show_table(table, key=f"table-{section.title}", numbers=set(table.columns) - set(tables.TEXT_COLUMNS))
    if section.note:
        st.caption(section.note)
    if section.command:
        st.code(section.command, language="sh", wrap_lines=True)


frame.show_live(page, refresh_seconds=None)
