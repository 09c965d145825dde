"""The report of a run as a download."""

import shutil
from datetime import UTC
from pathlib import Path

import sqlalchemy as sa
import streamlit as st

from dashboard.views.run import report_download
from db.steps.archived import reading
from db.steps.archived.places import NOT_MOUNTED
from tests.dashboard.archived import archive_run


def test_a_report_of_steps_whose_place_is_away_is_a_page_that_says_so(store: sa.Engine, tmp_path: Path) -> None:
    archive_run(store, "r1", tmp_path / "place")
    assert "There is no report" not in report_download.page("r1", UTC)
    shutil.move(tmp_path / "place", tmp_path / "away")
    st.cache_resource.clear()
    reading.forget_contents()
    page = report_download.page("r1", UTC)
    assert "There is no report of run r1: The archived steps" in page
    assert NOT_MOUNTED in page
