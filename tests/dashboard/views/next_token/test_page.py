"""The next-token page: temperature changes sampling and never the loss."""

import pytest
import sqlalchemy as sa

from dashboard.data import cached
from dashboard.data.trainer import explorer
from dashboard.data.trainer.explorer import ExplorerAnswer
from db import commands
from db.store.engine import writing
from lossguard.vocabulary.protocol import PROBE
from lossguard.vocabulary.wire import Probe
from tests.dashboard.app_content import forget, metrics
from tests.dashboard.conftest import OpenPage
from tests.dashboard.views.next_token.probes import probe
from tests.db.seed import add_run, add_segment

pytestmark = pytest.mark.usefixtures("store")
PLAIN = Probe(prompt="ab", tokens=("c", "d"), log_probabilities=(-0.1, -2.4), target="c", target_log_probability=-0.1)


@pytest.mark.usefixtures("spiky")
def test_the_temperature_changes_the_sampling_probability_and_not_the_loss(open_page: OpenPage) -> None:
    app = open_page("next_token", run="spiky-1", probe="1")
    before = metrics(app)
    app.slider(key="temperature").set_value(2.0).run()
    after = metrics(app)
    assert before["True token"] == '"f"'
    assert before["-log P (as in the loss)"] == after["-log P (as in the loss)"] == "0.1054 nats"
    assert before["Sampling probability"] == "90.0%"
    assert float(after["Sampling probability"].rstrip("%")) < 60
    assert before["Entropy"].startswith("at most ")  # the probe names 3 of its tokens
    assert _number(after["Effective choices"]) > 3 * _number(before["Effective choices"])
    app = open_page("next_token", run="spiky-1", step="100")
    assert any("Recorded after step 100." in caption.value for caption in app.caption)


def _number(shown: str) -> float:
    return float(shown.removeprefix("at most "))


def test_probes_join_the_live_line_once_the_fork_step_of_a_later_segment_is_known(store: sa.Engine) -> None:
    def seen() -> list[bool]:
        forget()
        facts = cached.facts("r1")
        assert facts is not None
        return [each.live for each in cached.probes(facts, "p")]

    with writing(store) as session:
        run = add_run(session)
        add_segment(session, run, "a")
        resumed = add_segment(session, run, "b", fork_step=None)
        details = probe(0.9, 0.1).to_details()
        commands.add_event(session, run=run, key="e", segment=1, step=7, time=1.0, kind=PROBE, details=details)
    assert seen() == [False]
    with writing(store) as session:
        commands.set_fork_step(session, run=session.merge(run), segment=session.merge(resumed), first_step=5)
    assert seen() == [True]


def test_a_run_without_probes_shows_how_to_record_some(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        add_run(session)
    app = open_page("next_token", run="r1")
    assert not app.exception
    assert app.info[0].value == "This run has recorded no probes."


def test_the_page_of_a_single_invalid_probe_explains_it(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session)
        add_segment(session, run, "a")
        details = probe(0.5, -1.0, target=1).to_details()
        commands.add_event(session, run=run, key="e", segment=0, step=7, time=1.0, kind=PROBE, details=details)
    app = open_page("next_token", run="r1")
    assert not app.exception
    assert "The model's output at step 7 is not a distribution" in app.error[0].value


@pytest.mark.usefixtures("spiky")
def test_a_prompt_of_ones_own_is_answered_by_two_checkpoints_side_by_side(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(prompt: str) -> list[ExplorerAnswer]:
        asked.append(prompt)
        return [ExplorerAnswer(name, PLAIN) for name in ("drill / step-10", "drill / step-20")]

    monkeypatch.setattr(explorer, "ask", ask)
    app = open_page("next_token", run="spiky-1", prompt="abc")
    assert asked == ["abc"]
    shown = [each.value for each in app.markdown]
    assert r"**drill / step\-10**" in shown
    assert r"**drill / step\-20**" in shown
    assert sum("at any temperature" in caption.value for caption in app.caption) == 2


@pytest.mark.usefixtures("spiky")
def test_where_nothing_answers_the_page_says_how_to_start_it(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_EXPLORER_URL", "http://127.0.0.1:9")
    app = open_page("next_token", run="spiky-1", prompt="abc")
    assert any("trainer explore CHECKPOINT" in each.value for each in app.info)
