"""The detector lab: what other settings would have caught, missed and done."""

import time

import pytest
import sqlalchemy as sa

from db.models import Run
from db.records import access
from db.store.engine import writing
from tests.dashboard.app_content import figure, forget, metrics, names
from tests.dashboard.conftest import OpenPage
from tests.dashboard.live import report_a_spike
from tests.dashboard.seed import seed, stored
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")


@pytest.mark.usefixtures("spiky")
def test_the_lab_detects_an_incident_on_a_discarded_branch_again_and_simulates_other_policies(
    open_page: OpenPage,
) -> None:
    app = open_page("lab", run="spiky-1")
    shown = metrics(app)
    assert (shown["Caught"], shown["Missed"]) == ("1 of 1", "0")
    assert {"loss", "loss, discarded branch", "caught", "rewind"} <= names(figure(app))
    assert app.dataframe[0].value["Known incident"].tolist() == ["incident 1: loss spike", "-"]
    assert app.dataframe[0].value["Detected as"].tolist() == ["divergence", "non-finite value"]
    adaptive = app.dataframe[0].value["Intervention"][0]
    app.selectbox(key="policy").set_value("palm").run()
    assert app.dataframe[0].value["Intervention"][0] != adaptive
    assert not app.warning
    app.slider(key="depth").set_value(300).run()
    assert app.dataframe[0].value["Intervention"][0].startswith("rewind to 100,")
    linked = open_page("lab", run="spiky-1", policy="palm", depth="700")
    warning = "All steps would be discarded by the rollbacks at steps 409, 655."
    assert linked.warning[0].value == f"The depth reaches the start of the run: step 0. {warning}"
    assert linked.dataframe[0].value["Intervention"][0].startswith("rewind to 0 (the start of the run), skip")


def test_another_run_is_selected_by_its_name_and_the_sliders_return_to_its_own_policy(
    open_page: OpenPage, store: sa.Engine
) -> None:
    for run_id in ("spiky-1", "spiky-2"):
        seed(store, run_id=run_id, now=time.time())
    with writing(store) as session:
        run = stored(session, "spiky-2")
        run.name, run.policy = "the second", {"name": "palm", "patience": 30, "min_depth": 250}
    app = open_page("lab", run="spiky-1", patience="50", sensitivity="3.0", policy="palm", depth="700")
    assert (app.slider(key="patience").value, app.slider(key="depth").value) == (50, 700)
    selector = app.selectbox(key="lab-run-spiky-1")
    assert selector.options == ["gpt-small / the second (spiky-2)", "gpt-small / stdlib bytes (spiky-1)"]
    app = selector.set_value("spiky-2").run()
    shown = (
        app.slider(key="patience").value,
        app.slider(key="depth").value,
        app.select_slider(key="sensitivity").value,
    )
    assert shown == (30, 250, 1.0)
    assert "These are the settings of the run's own policy." in [caption.value for caption in app.caption]
    app = app.slider(key="patience").set_value(40).run()
    assert app.slider(key="patience").value == 40


def test_an_open_page_shows_the_next_run_of_the_id_of_a_deleted_one(open_page: OpenPage, store: sa.Engine) -> None:
    def restart(started_at: float, num_steps: int) -> None:
        with writing(store) as session:
            session.execute(sa.delete(Run))
            session.flush()
            run = add_run(session, started_at=started_at)
            add_steps(session, run, add_segment(session, run, "a"), range(num_steps))
        forget()

    restart(1.0, 20)
    app = open_page("lab", run="r1")
    assert any(each.value.startswith("20 steps scored") for each in app.caption)
    restart(2.0, 30)
    assert any(each.value.startswith("30 steps scored") for each in app.run().caption)


def test_an_empty_store_is_explained(open_page: OpenPage) -> None:
    assert "No runs yet" in open_page("lab").info[0].value


def test_saving_the_policy_lists_the_changes_and_saved_settings_are_the_runs_own(
    open_page: OpenPage, store: sa.Engine
) -> None:
    report_a_spike(store)
    app = open_page("lab", run="asking", patience="30", sensitivity="3.0")
    (button,) = [each for each in app.button if each.label == "Save as the run's policy"]
    question = " ".join(markdown.value for markdown in button.click().run().markdown)
    assert "patience\\: 16 \\-\\> 30" in question
    assert "false\\_alarms\\_per\\_10k" in question
    app = open_page("lab", run="asking", patience="30")
    with writing(store) as session:
        assert len(access.trail(session)) == 1
        run = stored(session, "asking")
        assert run.policy is not None
        assert run.policy["patience"] == 16
        run.policy = {**run.policy, "patience": 30}
    forget()
    own = "These are the settings of the run's own policy."
    assert own in [caption.value for caption in app.run().caption], "of the policy as it is now"
