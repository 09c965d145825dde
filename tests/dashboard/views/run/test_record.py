"""Only what a person changes of a run is sent; the report of a run, or why there is none."""

from datetime import UTC
from typing import Any

import pytest

from dashboard.views.run.record import changes, report
from db.models import Run

UNCHANGED: dict[str, Any] = {"name": "r1", "tags": ["trial"], "note": "", "archived": False}


@pytest.mark.parametrize("changed", [{}, {"name": "paper run"}, {"tags": []}, {"note": "x", "archived": True}])
def test_only_what_differs_from_the_run_is_sent(changed: dict[str, Any]) -> None:
    run = Run(id="r1", config={"tags": ["trial"]})
    assert changes(run, UNCHANGED | changed) == changed


@pytest.mark.usefixtures("store")
def test_the_report_of_a_run_that_was_deleted_meanwhile_says_so() -> None:
    assert "This run is not in the store any more." in report("r1", UTC)
