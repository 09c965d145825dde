"""The table of incidents on the Run page."""

import pytest
import sqlalchemy as sa

from dashboard.data import cached
from dashboard.views.run import incidents
from db.goodput.rollback_costs import Rewind
from db.lineage import StepRange
from db.store.engine import writing
from tests.dashboard.app_content import incident_rows
from tests.dashboard.conftest import OpenPage
from tests.dashboard.seed import save_incident
from tests.db.seed import add_run

pytestmark = pytest.mark.usefixtures("store")
MANY = 300


@pytest.fixture
def many(store: sa.Engine) -> sa.Engine:
    """A run with MANY incidents, of which number 7 is open."""
    with writing(store) as session:
        run = add_run(session)
        for number in range(1, MANY + 1):
            state, onset = "open" if number == 7 else "closed", 1000 * number
            save_incident(
                session, run, number, state=state, onset_step=onset, detected_step=onset + 4, outcome="recovered"
            )
    return store


def test_open_incidents_come_first_then_the_newest_and_more_on_request(open_page: OpenPage, many: sa.Engine) -> None:
    app = open_page("run", run="r1")
    rows = incident_rows(app)
    assert [row["number"] for row in rows] == [7, *range(MANY, MANY - 19, -1)]
    assert [row["outcome"] for row in rows[:2]] == ["open", "recovered"]
    assert rows[0]["url"] == "/incident?run=r1&incident=7"
    (more,) = [each for each in app.button if each.label.startswith("Show more")]
    assert more.label == "Show more (20 of 300 incidents)"
    assert f"{MANY} loss spikes." in " ".join(each.value for each in app.markdown)


def test_rows_hold_what_people_wrote_as_text(store: sa.Engine) -> None:
    with writing(store) as session:
        save_incident(session, add_run(session, "a&b=c"), kind="odd_\u202ekind", state="warning")
    facts = cached.facts("a&b=c")
    assert facts is not None
    (row,) = incidents.rows(facts, [], 20)
    assert (row.kind, row.outcome, row.cost) == ("odd \\u202ekind", "warning", "-")
    assert row.url == "/incident?run=a%26b%3Dc&incident=1"


def test_the_cost_of_an_incident_is_that_of_all_its_rollbacks() -> None:
    first = Rewind(1, "rollback", 100, (StepRange(0, 100, 140),), 3, None, 10.0, 15.0)
    second = Rewind(2, "rollback", 90, (StepRange(1, 90, 120),), 3, None, 20.0, 30.0)
    other = Rewind(3, "resume", 80, (StepRange(2, 80, 81),), None)
    unknown = Rewind(4, "rollback", 70, (StepRange(3, 70, 71),), 4)
    assert incidents.costs_by_incident([first, second, other, unknown]) == {3: "70 steps, 15 s", 4: "1 step"}
