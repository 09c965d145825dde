"""The box for a search of runs (`lossguard.vocabulary.run_search`), and the sentences about what cannot be read in
it."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard import formatting

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
