"""The tables of the scorecard."""

from dashboard.views.scorecard import tables
from lossguard.vocabulary.states import IncidentKind
from monitor.detection.scorecard.endings import Ending
from monitor.detection.scorecard.scored_run import score
from tests.monitor.detection.scorecard.stories import STILL_BAD, incident, six_runs, stored_run


def test_endings_that_did_not_occur_are_left_out() -> None:
    table = tables.endings(six_runs())
    rows = {row.iloc[0]: (row.iloc[1], row.iloc[2]) for _, row in table.iterrows()}
    assert rows == {
        "A person did the same": (1, 0),
        "Recovered by itself, harm not measured": (2, 1),
        "The run died": (0, 1),
        "Not known yet": (1, 0),
    }


def test_every_ending_has_a_verdict() -> None:
    assert all(tables._verdict(ending) for ending in Ending)


def test_projects_end_with_a_row_for_all_where_there_are_several() -> None:
    one, two = stored_run(incident()), stored_run(incident(), project="llama")
    assert list(tables.projects(score([one]))["Project"]) == ["gpt"]
    assert list(tables.projects(score([two, one]))["Project"]) == ["gpt", "llama", "all"]


def test_runs_with_false_actions_come_first_and_runs_without_sites_are_left_out() -> None:
    dead = stored_run(incident(kind=IncidentKind.NONFINITE, proposal=None, **STILL_BAD), state="failed", id="dead")
    table = tables.runs(score([stored_run(id="quiet"), dead, stored_run(incident(), id="false", config={})]))
    assert list(table["Run"]) == ["false", "dead"]
    assert list(table["Devices"]) == ["1 (assumed)", "10"]


def test_a_site_shows_the_terms_of_its_hours() -> None:
    (run,) = score([stored_run(incident(), incident(2, proposal=None, onset_step=2000, detected_step=2001))])
    first, second = (row for _, row in tables.sites(run).iterrows())
    assert list(first)[3:] == [
        "rewind to 900, skip 20 batches",
        "recovered by itself, harm not measured",
        "118",
        "10",
        "10",
        "0",
        "-1.4",
    ]
    assert list(second)[3:] == ["wait", "recovered by itself, harm not measured", "-", "-", "-", "-", "-"]
