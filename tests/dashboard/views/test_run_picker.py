"""The boxes in which a run is chosen, with more runs than a box offers."""

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from dashboard.views import run_picker
from db.store.engine import writing
from tests.dashboard.conftest import OpenPage
from tests.db.seed import add_run, add_segment, add_steps


@pytest.fixture(autouse=True)
def _many(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_picker, "MAX_OFFERED", 2)
    with writing(store) as session:
        for number in range(5):
            run = add_run(session, f"r{number}", name=f"sweep {number % 2}", started_at=float(number))
            add_steps(session, run, add_segment(session, run, f"k{number}"), range(3))


def find(app: AppTest, text: str) -> AppTest:
    return app.text_input(key="find-compared").set_value(text).run()


def test_compare_offers_the_newest_runs_those_found_and_those_compared(open_page: OpenPage) -> None:
    app = open_page("compare", runs="r0")
    assert not app.exception
    assert app.multiselect(key="compared").options == ["gpt / sweep 0 (r4)", "gpt / sweep 1 (r3)", "gpt / sweep 0"]
    find(app, 'name="sweep 1"')
    assert app.multiselect(key="compared").options == ["gpt / sweep 1 (r3)", "gpt / sweep 1 (r1)", "gpt / sweep 0"]
    find(app, 'name="sweep 0" lr>x')
    assert [caption.value.partition("warning: ")[2] for caption in app.caption][:2] == [
        r"lr\>x\: a number must follow \>, not 'x'.]",
        "3 runs found; the 2 newest are offered.]",
    ]
    assert "No run matches." in find(app, "nothing").caption[0].value
