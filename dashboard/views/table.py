"""Tables on pages. A table that is wider than the screen scrolls within its own box, and its first column stays."""

from collections.abc import Collection
from typing import Literal

import pandas as pd
import streamlit as st

MAX_ROWS_SHOWN = 25
"""Maximum rows that a table shows without scrolling; a longer one scrolls within its box."""


def show_table(table: pd.DataFrame, *, key: str, numbers: Collection[str] = ()) -> None:
    """`numbers` names the columns that are right-aligned: numbers, those that are texts too."""
    columns = {
        name: st.column_config.Column(pinned=place == 0, alignment="right" if name in numbers else None)
        for place, name in enumerate(table.columns)
        if place == 0 or name in numbers
    }
    height: Literal["content", "auto"] = "content" if len(table) <= MAX_ROWS_SHOWN else "auto"
    st.dataframe(table, hide_index=True, key=key, column_config=columns, height=height)
