"""Notes at steps on the Run page and in the report."""

import time
from typing import Any

import pytest
import sqlalchemy as sa
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard.data import cached
from dashboard.data.facts import RunFacts
from db import queries
from db.records import step_notes
from db.store.engine import reading, writing
from tests.dashboard.app_content import figure
from tests.dashboard.conftest import OpenPage
from tests.dashboard.report.reader import read
from tests.dashboard.seed import seed
from tests.dashboard.serving import serving

pytestmark = pytest.mark.usefixtures("store")


def write(store: sa.Engine, *notes: tuple[int, str]) -> None:
    with writing(store) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        for step, text in notes:
            step_notes.add_step_note(session, run=run, step=step, text=text, author="Ada (token t)", now=1.7e9)


def stored(store: sa.Engine) -> list[tuple[int, str]]:
    with reading(store) as session:
        run = queries.run_named(session, run_id="spiky-1")
        assert run is not None
        return [(note.step, note.text) for note in step_notes.step_notes(session, run=run)]


def text_of(app: AppTest) -> str:
    assert not app.exception
    return "\n".join([each.value for each in app.markdown] + [each.value for each in app.caption])


def test_a_run_without_notes_says_so_and_has_no_pins(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("run", run="spiky-1")
    assert "None so far. A note stays at its step" in text_of(app)
    assert "note" not in {trace["name"] for trace in figure(app)["data"]}


def test_notes_are_listed_pinned_and_in_the_report(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    write(store, (250, "the *learning rate*\nwas halved"), (420, "the shard was bad"), (420, "replaced <b>it</b>"))
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
    report = read("spiky-1")
    assert "replaced <b>it</b>" in report.text


def test_many_notes_are_folded(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    write(store, *((step, f"note {step}") for step in range(25)))
    app = open_page("run", run="spiky-1")
    assert ("note 24" in text_of(app), "note 3\n" in text_of(app)) == (True, False)
    app.toggle(key="all-notes").set_value(True).run()
    assert "note 3\n" in text_of(app)


def form(notes_form: str, **arguments: Any) -> AppTest:
    """The content of the dialog. A press in an open dialog reruns only the dialog, which AppTest cannot do."""

    def script(notes_form: str, arguments: dict[str, object]) -> None:
        from dashboard.views.run import notes

        getattr(notes, notes_form)(**arguments)

    return AppTest.from_function(script, default_timeout=120, kwargs={"notes_form": notes_form, "arguments": arguments})


def facts() -> RunFacts:
    found = cached.facts("spiky-1")
    assert found is not None
    return found


def add(text: str, step: int | None = None) -> list[str]:
    """Fill in the form and press its button: the errors that it shows."""
    app = form("addition", facts=facts()).run()
    app.text_area(key="note-text").set_value(text)
    app.number_input(key="note-step").set_value(step)
    app.button(key="confirm-yes").click().run()
    return [each.value for each in app.error]


def test_a_note_is_added_at_the_newest_step_or_another_and_deleted_without_a_typed_word(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(store, now=time.time())
    monkeypatch.setenv("LOSSGUARD_DASHBOARD_OPERATE", "1")
    with serving(store) as url:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        assert add("a look at the newest") == add("here it began", 409) == []
        assert stored(store) == [(409, "here it began"), (799, "a look at the newest")]
        (error,) = add("too far", 800)
        assert "step 800 has not been reported; name one from 0 to 799" in error
        st.cache_resource.clear()
        newest = facts().notes[-1]
        form("deletion", facts=facts(), note=newest).run().button(key="confirm-yes").click().run()
    assert stored(store) == [(409, "here it began")]


def test_the_buttons_open_the_forms(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    write(store, (250, "the learning rate was halved"))
    app = open_page("run", run="spiky-1")
    placeholder = app.button(key="add-note").click().run().number_input(key="note-step").placeholder
    assert placeholder == "the newest one, now 799"
    app = open_page("run", run="spiky-1")
    app.button(key="delete-note-1").click().run()
    assert "The audit trail keeps what it said." in text_of(app)
    assert "confirm-word" not in [each.key for each in app.text_input]
