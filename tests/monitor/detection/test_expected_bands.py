"""The band on the page is the one that the detectors judged by."""

import numpy as np
import pytest

from lossguard.vocabulary.source_facts import SourceFacts
from monitor.detection import DetectionEngine, DetectionSettings, IncidentChanged, Rows
from monitor.detection.expected_bands import bands


def curve(num_rows: int = 400, spike: int = 300) -> Rows:
    noise = np.random.default_rng(3)
    loss = 2.0 + noise.normal(0, 0.03, num_rows)
    loss[spike : spike + 20] += 3.0
    return Rows.of(range(num_rows), loss=loss, grad_norm=np.exp(noise.normal(0, 0.1, num_rows)))


def test_the_band_is_what_the_incident_says_was_expected_when_it_was_detected() -> None:
    rows, engine = curve(), DetectionEngine()
    engine.feed(rows[:200])
    kept = engine.detectors_state()
    found = next(effect.incident for effect in engine.feed(rows[200:]) if isinstance(effect, IncidentChanged))
    band = bands(rows[280:], [rows[200:280]], detectors=kept)[found.signal]
    at = found.detected_step - 280
    assert band.expected[at] == found.expected
    assert band.high[at] == pytest.approx(found.expected + 3 * found.scale)
    assert band.score[at] == pytest.approx(found.score, abs=5e-4)  # the incident's is rounded


def test_a_signal_judged_by_its_logarithm_has_a_band_of_factors() -> None:
    band = bands(curve(), [], detectors=None)["grad_norm"]
    assert band.low[-1] > 0
    assert band.high[-1] / band.expected[-1] == pytest.approx(band.expected[-1] / band.low[-1])


def test_a_broken_row_scores_beyond_every_number_and_the_rest_of_the_band_stays() -> None:
    rows = Rows.of(range(100), loss=[*np.full(99, 2.0), np.nan])
    band = bands(rows, [], detectors=None, settings=DetectionSettings())["loss"]
    assert band.score[-1] == np.inf
    assert band.expected[-1] == 2.0
    assert np.isfinite(band.score[:-1]).all()


def test_a_declared_change_widens_the_band_at_its_step() -> None:
    rows = curve(spike=399)
    plain = bands(rows, [], detectors=None)["loss"]
    shifted = bands(rows, [], detectors=None, declared=[(200, "learning_rate")])["loss"]
    assert (plain.high[:200] == shifted.high[:200])[np.isfinite(plain.high[:200])].all()
    assert shifted.high[201] > plain.high[201]


def test_the_band_of_a_smoothed_loss_is_that_of_the_loss_before() -> None:
    rows = curve(spike=390)
    band = bands(rows, [], detectors=None, source=SourceFacts(smoothing=0.9))["loss"]
    width = bands(rows, [], detectors=None)["loss"]
    assert (band.high - band.low)[300] > 3 * (width.high - width.low)[300]
