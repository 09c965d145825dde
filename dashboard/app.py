"""The Streamlit script: declares the pages. Serve it with `python -m dashboard`."""

from pathlib import Path

import streamlit as st

from dashboard.views import session

HERE = Path(__file__).parent
VIEWS = HERE / "views"

st.set_page_config(page_title="Lossguard", page_icon=str(HERE / "icon.svg"), layout="wide")
st.html(VIEWS / "page.css")
session.require_reader()
st.navigation(
    [
        st.Page(VIEWS / "runs/page.py", title="Runs", icon=":material/list:", default=True),
        st.Page(VIEWS / "run/page.py", title="Run", icon=":material/show_chart:", url_path="run"),
        st.Page(VIEWS / "compare/page.py", title="Compare", icon=":material/compare_arrows:", url_path="compare"),
        st.Page(VIEWS / "incident/page.py", title="Incident", icon=":material/crisis_alert:", url_path="incident"),
        st.Page(
            VIEWS / "next_token/page.py", title="Next token", icon=":material/format_quote:", url_path="next-token"
        ),
        st.Page(VIEWS / "scorecard/page.py", title="Scorecard", icon=":material/balance:", url_path="scorecard"),
        st.Page(VIEWS / "lab/page.py", title="Detector lab", icon=":material/tune:", url_path="lab"),
        st.Page(VIEWS / "trainer_lab/page.py", title="Trainer lab", icon=":material/science:", url_path="trainer-lab"),
    ],
    position="top",
).run()
