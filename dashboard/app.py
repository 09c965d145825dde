"""The Streamlit script: declares the pages. Serve it with `python -m dashboard`."""

from pathlib import Path

import streamlit as st

from dashboard.views import frame

VIEWS = Path(__file__).parent / "views"
ABOUT = "**Lossguard** watches training runs, and gets them past loss spikes."

st.set_page_config(page_title=frame.APP, page_icon=frame.ICON, layout="wide", menu_items={"About": ABOUT})
st.html(VIEWS / "page.css")
frame.require_reader()
page = st.navigation(
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
)
frame.open_page(page.title)
frame.show_banner()
page.run()
