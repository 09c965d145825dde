"""The figure of a run, which viewers of the same view share."""

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from dashboard.axes import AxisChoices, XAxis
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.views.run import curves
from dashboard.views.run.curves import ViewOptions
from db.records.step_notes import StepNote

OPTIONS = ViewOptions(("loss",), XAxis.TIME, 0, discarded=True, axes=AxisChoices())
NOTE = StepNote(id=1, step=5, text="odd", author="ada", created_at=1.0)


@pytest.fixture
def facts(spiky: sa.Engine) -> RunFacts:
    found = cached.facts("spiky-1")
    assert found is not None
    return found


@pytest.mark.parametrize(
    "other",
    [{"zone": "Asia/Kolkata"}, {"window": (0, 99)}, {"notes": [NOTE]}, {"options": replace(OPTIONS, smooth=10)}],
)
def test_another_view_and_a_new_mark_are_drawn_anew(facts: RunFacts, other: dict[str, Any]) -> None:
    def drawn(options: ViewOptions = OPTIONS, zone: str = "UTC", window: Any = None, **changed: Any) -> str:
        return curves.draw(replace(facts, **changed), options, window, zone).name

    first = drawn()
    assert drawn() == first
    assert drawn(**other) != first
