"""A file that a viewer chooses, read once."""

from collections.abc import Callable
from typing import TypeVar

import streamlit as st

from dashboard import formatting
from dashboard.upload_limits import MAX_FILE_MIB

Data = TypeVar("Data")


def uploaded(
    label: str, kind: str, *, key: str, help: str, read: Callable[[str, bytes], Data], error: type[Exception]
) -> Data | None:
    """Return what `read` makes of the name and the bytes of the file; None without a file, and after an `error`.

    `kind`: the ending of the file's name. The session keeps what was read until another file is chosen.
    """
    file = st.file_uploader(label, type=kind, key=key, help=help, max_upload_size=MAX_FILE_MIB)
    if file is None:
        st.caption(help)
        return None
    kept: tuple[str, Data | None, str] | None = st.session_state.get(f"{key}-read")
    if kept is None or kept[0] != file.file_id:
        try:
            kept = file.file_id, read(file.name, file.getvalue()), ""
        except error as why:
            kept = file.file_id, None, formatting.escape_markdown(str(why))
        st.session_state[f"{key}-read"] = kept
    if kept[2]:
        st.error(kept[2], icon=":material/error:")
    return kept[1]
