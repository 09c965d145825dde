"""The numbers of a run's card."""

import math

from dashboard.data.facts import RunCard
from dashboard.data.progress import Progress
from dashboard.views.runs.cards import facts_html
from db.runs.overview import Tally
from lossguard.vocabulary.states import RunState
from tests.dashboard.views.runs.listed import NOW, listed


def shown(progress: Progress, loss: float | None = None, state: str = RunState.RUNNING) -> str:
    run = listed("a", state=state).run
    return facts_html(RunCard(run, progress, loss, None, []), Tally(open_incidents=2), NOW)


def test_a_running_run_has_its_time_left_and_a_finished_one_its_share() -> None:
    half = Progress(50, 100, 1.8)
    assert "1 min 30 s left" in shown(half)
    assert '<progress max="1" value="0.5000"' in shown(half)
    assert ">50%</span>" in shown(half, state=RunState.FINISHED)
    assert "<progress" not in shown(Progress(50, None, None))


def test_what_is_missing_or_not_finite_is_said() -> None:
    found = shown(Progress(0, None, None), loss=math.nan)
    assert "<dt>Loss</dt><dd>NaN</dd>" in found
    assert "<dt>Tokens</dt><dd>-</dd>" in found
    assert "<dt>Open incidents</dt><dd>2</dd>" in found
    assert "<img" not in found
