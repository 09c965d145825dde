"""The runs that a box offers, and the box for a search of runs (`lossguard.vocabulary.run_search`).

A browser is not sent thousands of runs. Where there are more, a search finds the others.
"""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard import formatting
from dashboard.data import run_list
from db.models import Run
from db.runs.filters import RunFilter
from lossguard.vocabulary import run_search
from lossguard.vocabulary.run_search import RunOrder

HELP = """\
Words, and conditions on fields, settings and metrics: `lr>1e-3 state:running project:gpt tag:baseline steps>=10k
loss<2.5 incidents>0 host:node-1 seed=7`. A minus excludes: `-debug -archived`. A setting is named by its path or the
last part of it, a metric means its newest value; `config.` or `metric.` in front decides. Quotes keep spaces together.
"""
WIDTH_PIXELS = 330


def search_box(label: str, *, key: str, placeholder: str, **options: Any) -> str:
    """Show the search box, and return its text."""
    text: str = st.text_input(label, placeholder=placeholder, key=key, width=WIDTH_PIXELS, help=HELP, **options)
    return text


def show_problems(problems: Sequence[str]) -> None:
    """One sentence for each part of the search that cannot be read; the rest applies."""
    with st.container(gap=None):
        for problem in problems:
            st.caption(f":orange[:material/warning: {formatting.escape_markdown(problem)}]")


MAX_OFFERED = 50


def offered_runs(*, key: str) -> Sequence[Run]:
    """The newest runs, archived ones too; where there are more than MAX_OFFERED, those that the viewer searched for.

    `key`: of the box for the search, which is shown only then.
    """
    num_runs = run_list.num_runs()
    search = run_search.Search()
    if num_runs > MAX_OFFERED:
        placeholder = f"search {num_runs:,} runs"
        search = run_search.parse(search_box("Find runs", key=key, placeholder=placeholder))
    found = run_list.found(RunFilter(search=search), RunOrder.NEWEST, MAX_OFFERED)
    problems = list(search.problems)
    if search.terms and not found.total:
        problems.append("No run matches.")
    elif search.terms and found.total > MAX_OFFERED:
        problems.append(f"{formatting.plural(found.total, 'run')} found; the {MAX_OFFERED} newest are offered.")
    show_problems(problems)
    return [row.run for row in found.rows]
