"""The next-token page: temperature reshapes sampling and never the loss."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from dashboard.data import cached
from dashboard.data.store import CACHE_SECONDS
from dashboard.views.next_token.distribution import at_temperature, surprisal
from dashboard.views.next_token.figure import bars, history, quoted
from db import commands
from db.engine import writing
from db.queries import StoredProbe
from lossguard.probe import Probe
from lossguard.protocol import PROBE
from tests.dashboard.conftest import OpenPage
from tests.dashboard.seed import seed
from tests.dashboard.test_pages import metrics
from tests.db.seed import add_run, add_segment

pytestmark = pytest.mark.usefixtures("store")


def probe(*shares: float, target: int | None = None, rest: float = 0.0, rest_count: int = 0) -> Probe:
    tokens = tuple("abcdefgh"[: len(shares)])
    logs = tuple(math.log(share) if share > 0 else -math.inf if share == 0 else math.nan for share in shares)
    return Probe(
        prompt="p",
        tokens=tokens,
        log_probabilities=logs,
        target=None if target is None else tokens[target],
        target_log_probability=None if target is None else logs[target],
        rest_count=rest_count,
        rest_log_probability=math.log(rest) if rest_count else None,
    )


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 3.0])
def test_sampling_follows_the_softmax_of_the_logits_over_the_temperature(temperature: float) -> None:
    now = at_temperature(probe(0.6, 0.3, 0.1, target=1), temperature)
    assert now is not None
    weights = np.array([0.6, 0.3, 0.1]) ** (1 / temperature)
    assert now.named == pytest.approx(weights / weights.sum())
    assert now.target == pytest.approx(now.named[1])


def test_temperature_one_is_the_models_own_distribution_and_the_surprise_knows_no_other() -> None:
    asked = probe(0.5, 0.2, target=1, rest=0.3, rest_count=3)
    now = at_temperature(asked, 1.0)
    assert now is not None
    assert [*now.named, now.rest] == pytest.approx([0.5, 0.2, 0.3])
    assert now.entropy == pytest.approx(-(0.5 * math.log(0.5) + 0.2 * math.log(0.2) + 3 * 0.1 * math.log(0.1)))
    assert surprisal(asked) == pytest.approx(-math.log(0.2))


def test_effective_choices_are_the_number_of_equally_likely_tokens() -> None:
    now = at_temperature(probe(0.25, 0.25, 0.25, 0.25), 2.0)
    assert now is not None
    assert now.effective_choices == pytest.approx(4.0)


def test_a_token_that_is_impossible_stays_so_at_every_temperature() -> None:
    now = at_temperature(probe(1.0, 0.0, target=1), 3.0)
    assert now is not None
    assert now.named.tolist() == [1.0, 0.0]
    assert now.entropy == 0.0


def test_a_model_that_gave_nan_has_no_distribution_and_its_surprise_stays_nan() -> None:
    broken = probe(0.5, -1.0, target=1)
    assert at_temperature(broken, 1.0) is None
    assert math.isnan(surprisal(broken) or 0.0)


def test_the_true_token_has_a_bar_wherever_it_stands_and_the_rest_is_one_bar() -> None:
    tokens = tuple(f"t{number}" for number in range(40))
    logs = tuple(math.log((40 - number) / 820) for number in range(40))
    asked = Probe(prompt="p", tokens=tokens, log_probabilities=logs, target="t39", target_log_probability=logs[39])
    now = at_temperature(asked, 1.0)
    assert now is not None
    figure = bars(asked, now, now)
    assert figure.layout.yaxis.ticktext[-2:] == ('<b>"t39"</b>', "26 others")
    assert sum(figure.data[0].x) == pytest.approx(1.0)


def test_the_history_draws_discarded_probes_apart_and_a_cross_for_what_is_not_finite() -> None:
    taken = [
        StoredProbe(segment=0, step=step, time=0.0, live=step != 20, probe=probe(0.7, share, target=1))
        for step, share in ((0, 0.3), (10, -1.0), (20, 0.2), (30, 0.3))
    ]
    figure = history(taken, 30)
    live = [trace for trace in figure.data if trace.name == "live line"]
    assert [list(trace.x) for trace in live] == [[0, 10, 30]] * 2
    assert np.isnan(live[0].y[1])
    assert [list(trace.x) for trace in figure.data if trace.name == "not finite"] == [[10]]
    assert [list(trace.x) for trace in figure.data if trace.name == "discarded branch"] == [[20]] * 2


def test_no_token_of_the_history_has_the_colour_of_the_live_line() -> None:
    figure = history([StoredProbe(segment=0, step=0, time=0.0, live=True, probe=probe(0.7, 0.2, 0.1))], 0)
    colors = {trace.name: trace.line.color for trace in figure.data}
    assert len(set(colors.values())) == len(colors) == 4


def test_invisible_characters_of_a_token_are_escaped() -> None:
    assert [quoted(token) for token in (" ", "\n", "\\n", "\u00e9")] == ['" "', '"\\n"', '"\\n"', '"\u00e9"']


def test_the_temperature_changes_the_sampling_probability_and_not_the_loss(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time())
    app = open_page("next_token", run="spiky-1", probe="1")
    before = metrics(app)
    app.slider(key="temperature").set_value(2.0).run()
    after = metrics(app)
    assert before["True token"] == '"f"'
    assert before["-log P, in the loss"] == after["-log P, in the loss"] == "0.1054 nats"
    assert before["Sampled with"] == "90.0%"
    assert float(after["Sampled with"].rstrip("%")) < 60
    assert float(after["Effective choices"]) > 3 * float(before["Effective choices"])


def test_a_true_token_is_never_rendered_as_markdown(open_page: OpenPage, store: sa.Engine) -> None:
    asked = replace(probe(0.9, 0.1, target=0), tokens=("*a  b* $x$\\", "b"), target="*a  b* $x$\\")
    with writing(store) as session:
        run = add_run(session)
        add_segment(session, run, "a")
        commands.add_event(
            session, run=run, key="e", segment=0, step=7, time=1.0, kind=PROBE, details=asked.to_details()
        )
    assert metrics(open_page("next_token", run="r1"))["True token"] == r'"\*a  b\* \$x\$\\"'


def test_a_step_of_the_url_is_shown(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("next_token", run="spiky-1", step="100")
    assert any("Recorded after step 100." in caption.value for caption in app.caption)


def test_probes_join_the_live_line_once_the_fork_step_of_a_later_segment_is_known(store: sa.Engine) -> None:
    def seen() -> list[bool]:
        time.sleep(CACHE_SECONDS)
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
    assert app.info[0].value == "No probes yet."


def test_the_page_of_a_single_invalid_probe_explains_it(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session)
        add_segment(session, run, "a")
        details = probe(0.5, -1.0, target=1).to_details()
        commands.add_event(session, run=run, key="e", segment=0, step=7, time=1.0, kind=PROBE, details=details)
    app = open_page("next_token", run="r1")
    assert not app.exception
    assert "The model's output at step 7 is not a distribution" in app.error[0].value
