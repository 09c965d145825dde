"""Notes at steps on the Run page and in the report."""

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from db.records import step_notes
from db.store.engine import writing
from tests.dashboard.app_content import figure, forget
from tests.dashboard.conftest import OpenPage
from tests.dashboard.report.reader import read
from tests.dashboard.seed import stored

pytestmark = pytest.mark.usefixtures("store")


def write(store: sa.Engine, *notes: tuple[int, str]) -> None:
    with writing(store) as session:
        run = stored(session)
        for step, text in notes:
            step_notes.add_step_note(session, run=run, step=step, text=text, author="Ada (token t)", now=1.7e9)


def text_of(app: AppTest) -> str:
    assert not app.exception
    return "\n".join([each.value for each in app.markdown] + [each.value for each in app.caption])


def test_notes_are_listed_pinned_and_in_the_report(open_page: OpenPage, spiky: sa.Engine) -> None:
    app = open_page("run", run="spiky-1")
    assert "None so far. A note stays at its step" in text_of(app)
    assert "note" not in {trace["name"] for trace in figure(app)["data"]}
    write(spiky, (250, "the *learning rate*\nwas halved"), (420, "the shard was bad"), (420, "replaced <b>it</b>"))
    forget()
    app = open_page("run", run="spiky-1")
    shown = text_of(app)
    assert "the \\*learning rate\\*  \nwas halved" in shown
    assert "**Step 420**" in shown
    assert "Ada \\(token t\\) / 2023-11-14" in shown
    (pins,) = [trace for trace in figure(app)["data"] if trace["name"] == "note"]
    assert pins["x"][::3] == [250, 420]
    assert pins["customdata"][3] == (
        "the shard was bad (Ada (token t))<br>replaced &lt;b&gt;it&lt;/b&gt; (Ada (token t))"
    )
    assert "replaced <b>it</b>" in read("spiky-1").text
    placeholder = app.button(key="add-note").click().run().number_input(key="note-step").placeholder
    assert placeholder == "the newest one, now 799"


def test_many_notes_are_folded_and_one_is_deleted_without_a_typed_word(open_page: OpenPage, spiky: sa.Engine) -> None:
    write(spiky, *((step, f"note {step}") for step in range(25)))
    app = open_page("run", run="spiky-1")
    assert ("note 24" in text_of(app), "note 3\n" in text_of(app)) == (True, False)
    app.toggle(key="all-notes").set_value(True).run()
    assert "note 3\n" in text_of(app)
    app.button(key="delete-note-1").click().run()
    assert "The audit trail keeps what it said." in text_of(app)
    assert "confirm-word" not in [each.key for each in app.text_input]
