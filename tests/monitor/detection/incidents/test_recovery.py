"""The probability that a loss spike does not recover by itself."""

import numpy as np
import pytest

from monitor.detection import DetectionEngine, IncidentChanged, Rows
from monitor.detection.incidents.recovery import SpikeShape, usual_rows
from monitor.detection.rows import Floats
from tests.monitor.detection.runs import begun


def lasting(rows: int, gone: float = 0.0, usual: float = 9.0) -> float:
    return SpikeShape(rows, gone, usual).lasting_probability()


def test_a_spike_lasts_the_likelier_the_longer_nothing_of_it_is_gone() -> None:
    flat = [lasting(rows) for rows in (0, 6, 12, 24, 48)]
    assert flat == sorted(flat)
    assert flat[0] < 0.2
    assert flat[-1] > 0.8
    assert lasting(24, gone=0.5) < 0.02


def test_a_spike_is_waited_for_longer_in_a_run_whose_spikes_took_longer() -> None:
    assert lasting(24, usual=30) < 0.5 < lasting(24, usual=4)


@pytest.mark.parametrize("rows", [81, 10_000_000])
def test_a_spike_that_is_longer_than_any_that_was_fitted_counts_as_the_longest(rows: int) -> None:
    assert [lasting(rows, gone) for gone in (0.0, 0.7, 1.0)] == [lasting(80, gone) for gone in (0.0, 0.7, 1.0)]
    assert 0 < lasting(rows, 1.0) < lasting(rows) < 1


def test_the_usual_rows_are_those_of_spikes_that_were_not_much_smaller() -> None:
    assert usual_rows([], 20.0) == pytest.approx(9.0)
    assert usual_rows([(30, 9.0)] * 16, 20.0) == pytest.approx(9.0)
    assert 9 < usual_rows([(30, 10.0)], 20.0) < usual_rows([(30, 10.0)] * 16, 20.0) < 30


def test_a_recovery_of_less_than_0_rows_in_a_stored_state_counts_as_a_short_one() -> None:
    assert -6 < usual_rows([(-92, 20.0)], 20.0) < 9


def test_a_spike_whose_loss_is_no_longer_reported_is_no_recovery() -> None:
    loss: list[float | None] = [*(2.0 + 0.02 * np.random.default_rng(0).standard_normal(300)), 4.0, 4.0, 4.0]
    loss += [None] * 100 + [2.0] * 5 + [4.0] * 4
    engine, log = begun(Rows.of(range(len(loss)), loss=loss, grad_norm=[1.0] * len(loss)))
    assert [(each.onset_step, each.outcome) for each in log.incidents] == [(300, "ongoing"), (408, "ongoing")]
    assert log.incidents[0].reasons[-1] == "The last 96 rows do not report loss: its course is unknown."
    assert engine.incidents.recoveries == []


def incidents_of(loss: Floats, every: int = 1000) -> list[tuple[int, float | None]]:
    """(number, probability) of each change of an incident, where the rows come `every` at a time."""
    engine, found = DetectionEngine(), list[tuple[int, float | None]]()
    rows = Rows.of(np.arange(len(loss)), loss=loss)
    for part in rows.split(every):
        again, changed = DetectionEngine(), [each for each in engine.feed(part) if isinstance(each, IncidentChanged)]
        found += [(each.incident.number, each.incident.lasting_probability) for each in changed]
        again.load_state_dict(engine.state_dict())
        engine = again
    return found


def spiked(steps: int, nats: float = 0.3) -> Floats:
    loss = 2.2 + 0.02 * np.random.default_rng(0).standard_normal(700)
    loss[500 : 500 + steps] += nats
    return loss


def test_an_incident_carries_the_probability_however_its_rows_are_reported() -> None:
    whole = incidents_of(spiked(100))
    said = [probability or 0.0 for _, probability in whole]
    assert 0 < said[0] < 0.2 < 0.8 < max(said)
    assert said[-1] < 0.3
    assert incidents_of(spiked(100), every=7) == whole


def test_what_is_not_finite_does_not_recover_by_itself() -> None:
    assert {probability for _, probability in incidents_of(spiked(20, np.nan))} == {1.0}
