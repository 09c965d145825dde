"""The parts of a report are of bounded size, and nothing that a person wrote leaves its element."""

import json
from datetime import UTC
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from dashboard.data.facts import Curve
from dashboard.figures.curves import run_figure
from dashboard.figures.marks import Marks
from dashboard.report.contents import ReportContents, ReportLimits
from dashboard.report.parts import bounded_table, picture
from db.models import Event
from db.queries import Series


def test_a_name_that_people_chose_ends_neither_the_element_nor_its_label() -> None:
    name = '</script><script>alert(1)</script><!-- "'
    curve = Curve(
        Series([0, 1], [0, 1], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [1, 1], [0, 0], [1.0, 2.0]), {}
    )
    event = Event(segment=0, step=1, kind=name, details={"why": name})
    element = picture(run_figure({name: curve}, Marks(events=[event], last_step=1)), label=name)
    opening, _, rest = element.partition('<script type="application/json">')
    content, _, end = rest.partition("</script>")
    assert (opening.count("<"), opening.count('"'), end) == (1, 8, "</div>")
    assert "<" not in content
    assert json.loads(content)["layout"]["height"] > 100


@pytest.mark.parametrize(("limits", "rows"), [({"max_rows": 3}, 3), ({"max_table_letters": 8}, 2)])
def test_a_table_ends_at_the_limits_of_the_report_and_says_how_many_rows_it_leaves_out(
    limits: dict[str, Any], rows: int
) -> None:
    frame = pd.DataFrame({"metric": ["loss"] * 5})
    contents = cast("ReportContents", SimpleNamespace(limits=ReportLimits(**limits), zone=UTC))
    table = bounded_table(frame, contents)
    assert (len(table.rows), table.num_omitted) == (rows, 5 - rows)
