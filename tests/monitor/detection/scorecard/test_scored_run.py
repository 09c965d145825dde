"""Which runs are scored, and what is taken for their GPU-hours."""

from typing import Any

import pytest

from db.scorecard import StoredIncident
from lossguard.vocabulary.states import IncidentKind, InterventionState
from monitor.detection.scorecard.endings import Ending
from monitor.detection.scorecard.scored_run import ONLY_REPORTS, score_run
from tests.monitor.detection.scorecard.stories import incident, intervention, only_site, score, segment, stored_run


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({"policy": {"mode": "observe"}}, "observe"),
        ({"policy": {"mode": "approve"}}, "approve"),
        ({"policy": {"mode": "auto"}, "capabilities": []}, ONLY_REPORTS),
        ({"policy": None, "capabilities": []}, ONLY_REPORTS),
        ({"policy": {"mode": "of a later release"}}, "observe"),
    ],
)
def test_runs_that_get_no_orders_are_scored(changes: dict[str, Any], mode: str) -> None:
    assert [run.mode for run in score([stored_run(**changes)])] == [mode]


def test_a_run_in_auto_is_not() -> None:
    assert score([stored_run(policy={"mode": "auto"}), stored_run(policy=None)]) == []


def test_gpu_hours_are_steps_times_seconds_times_devices() -> None:
    assert score_run(stored_run()).gpu_hours == pytest.approx(3001 * 3.6 * 10 / 3600)
    assert score_run(stored_run(config={"ranks": 20})).gpu_hours == pytest.approx(3001 * 3.6 * 20 / 3600)
    assert score_run(stored_run(step_seconds=None)).gpu_hours is None


def test_advisories_and_what_cannot_be_read_are_counted_apart() -> None:
    run = stored_run(
        incident(1, kind=IncidentKind.PLATEAU), incident(2), incident(3, kind=IncidentKind.REPLAY_MISMATCH)
    )
    run.incidents.append(StoredIncident(0, {"number": 4, "kind": "of a later release"}))
    scored = score_run(run)
    assert (len(scored.sites), scored.num_advisories, scored.num_unreadable) == (1, 2, 1)


def test_an_operators_own_order_is_no_proposal_of_the_policy() -> None:
    own = intervention(mode=None, site_start=None, state=InterventionState.VERIFIED)
    lines = [segment(last=1050), segment(1, 400, 3000, intervention=1)]
    site = only_site(stored_run(incident(), interventions=[own], segments=lines))
    assert site.site.interventions == ()
    assert site.ending is Ending.OTHER  # 500 steps deeper than the policy would have gone
