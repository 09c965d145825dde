"""The head of every page."""

from pathlib import Path

import streamlit as st

from dashboard.page_head import STREAMLIT_TITLE, completed
from dashboard.security_headers import INLINE_SCRIPT, content_policy

PAGE = (Path(st.__file__).parent / "static/index.html").read_bytes()
"""As Streamlit has it."""


def test_a_page_is_ours_from_its_first_byte_and_its_scripts_may_run() -> None:
    assert PAGE.count(STREAMLIT_TITLE) == 1
    page = completed(PAGE)
    assert b"<title>Lossguard</title>" in page
    assert STREAMLIT_TITLE not in page
    scripts = INLINE_SCRIPT.findall(page)
    assert b"The dashboard has not answered" in scripts[-1]
    assert content_policy(page).count("'sha256-") == len(scripts)
