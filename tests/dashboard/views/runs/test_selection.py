"""Actions on several runs: what is asked, what is sent, and what the answer says of each run."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from dashboard.data import run_list
from dashboard.data.run_list import ListedRun
from dashboard.views.runs import selection
from db import queries
from db.records import access
from db.runs.filters import RunFilter
from db.store.engine import reading, writing
from lossguard.vocabulary.run_search import RunOrder
from lossguard.vocabulary.states import RunState
from tests.dashboard.seed import SEGMENT_END, STEPS, seed, stored
from tests.dashboard.serving import serving
from tests.dashboard.views.runs.listed import NOW, listed

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def collector(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """A finished run and a running one, and a collector at the address that the dashboard uses."""
    seed(store, run_id="done", state=RunState.FINISHED, now=NOW)
    seed(store, run_id="alive", now=NOW)
    with serving(store) as url:
        monkeypatch.setenv("LOSSGUARD_URL", url)
        monkeypatch.setenv("LOSSGUARD_DASHBOARD_OPERATE", "1")
        yield store


def dialog(name: str, rows: list[ListedRun]) -> AppTest:
    """The content of a dialog. A press in an open dialog reruns only the dialog, which AppTest cannot do."""

    def script(name: str, rows: object) -> None:
        from dashboard.views.runs import selection

        getattr(selection, name).__wrapped__(rows)

    return AppTest.from_function(script, default_timeout=120, kwargs={"name": name, "rows": rows}).run()


def confirm(app: AppTest, word: str) -> AppTest:
    app.text_input(key="confirm-word").input(word)
    return app.button(key="confirm-yes").click().run()


def both() -> list[ListedRun]:
    return sorted(
        run_list.listed(run_list.found(RunFilter(), RunOrder.NEWEST, 10).rows, []),
        key=lambda row: row.run.id,
        reverse=True,
    )


def test_runs_that_could_not_be_archived_are_named_with_the_reason_and_the_others_are(collector: sa.Engine) -> None:
    app = confirm(dialog("archive", both()), "Archive")
    assert app.error[0].value.startswith("1 of 2 done. These were not:\n\n- gpt\\-small / stdlib bytes\\: Too late")
    assert "alive is running" in app.error[0].value
    with reading(collector) as session:
        archived = {run.id: run.archived_at is not None for run in queries.runs(session)}
        assert archived == {"done": True, "alive": False}
        assert [(entry.action, entry.run) for entry in access.trail(session)] == [("edit", "done")]


def test_deleting_says_what_goes_and_asks_for_the_name(collector: sa.Engine) -> None:
    done = both()[:1]
    app = dialog("delete", done)
    stored = STEPS + SEGMENT_END - 300
    assert f"It deletes {stored:,} steps, 1 incident and 1 intervention" in app.markdown[0].value
    assert 'Type "stdlib bytes" into the field' in confirm(app, "delete").error[0].value
    assert not confirm(app, "Stdlib bytes").error
    with reading(collector) as session:
        assert [run.id for run in queries.runs(session)] == ["alive"]


@pytest.mark.parametrize(("name", "word"), [("ok", "ok"), (" ", "id-x"), ("a\u202eb", "id-x"), ("", "id-x")])
def test_a_name_that_nobody_can_type_is_replaced_by_the_id(name: str, word: str) -> None:
    app = dialog("delete", [listed("x", id="id-x") if name == "x" else listed(name, id="id-x")])
    assert app.text_input(key="confirm-word").label == f'To confirm, type "{word.replace("-", chr(92) + "-")}"'


def test_tags_that_somebody_gave_meanwhile_stay_and_without_any_chosen_nothing_is_called_changed(
    collector: sa.Engine,
) -> None:
    rows = both()[:1]
    with writing(collector) as session:
        stored(session, "done").tags = ["by another"]
    app = dialog("tag", rows)
    assert confirm(app, "tag").error[0].value == "Nothing was changed: all is already as chosen."
    app.multiselect(key="tag-add").set_value(["mine"])
    assert not confirm(app, "tag").error
    with reading(collector) as session:
        assert stored(session, "done").tags == ["by another", "mine"]


def test_tags_are_added_and_removed_and_runs_that_have_them_so_already_are_left_alone() -> None:
    rows = [listed("a", tags=["x", "y"]), listed("b", tags=["z"]), listed("c", config={"tags": ["x"]})]
    sent = selection.tag_requests(rows, {"add": ["z"], "remove": ["x"]})
    assert [(each.path, each.body) for each in sent] == [
        ("/runs/id-a", {"tags": ["y", "z"]}),
        ("/runs/id-c", {"tags": ["z"]}),
    ]
