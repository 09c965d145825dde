"""Detected incidents are matched with the known ones."""

from dashboard.views.lab.trial_input import KnownIncident
from dashboard.views.lab.trial_results import table, totals, trial_results
from monitor.detection import DetectionSettings, Policy, Rows
from monitor.detection.simulation import SegmentRows, Simulation, score, simulate
from tests.dashboard.views.lab.curves import spiked

SETTINGS = DetectionSettings()


def simulated(*spikes: int) -> Simulation:
    return simulate(score([SegmentRows(Rows.of(range(600), loss=spiked(600, *spikes)))], SETTINGS), SETTINGS, Policy())


def test_a_known_incident_is_caught_or_missed_and_an_unknown_one_is_new() -> None:
    results = trial_results(
        simulated(300, 450), [KnownIncident("injected", 300, 311), KnownIncident("quiet", 100, 110)]
    )
    assert [(each.verdict, each.known and each.known.name) for each in results] == [
        ("missed", "quiet"),
        ("caught", "injected"),
        ("new", None),
    ]
    assert (totals(results).caught, totals(results).missed, totals(results).new) == (1, 1, 1)
    assert table(results)["Known incident"].tolist() == ["quiet", "injected", "-"]


def test_two_known_incidents_that_match_one_detected_incident_count_its_rollback_once() -> None:
    known, lasting = KnownIncident("one", 300, 335), simulated(300, 312, 324)  # of 36 rows: the policy rolls back
    one, both = totals(trial_results(lasting, [known])), totals(trial_results(lasting, [known] * 2))
    assert (both.caught, both.rollbacks, both.steps_discarded) == (2, 1, one.steps_discarded)
    assert both.batches_skipped == one.batches_skipped > 0
