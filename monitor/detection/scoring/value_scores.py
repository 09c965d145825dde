"""One value at a time: the scores that `SignalDetector.feed` gives it, by plain numbers instead of arrays of length 1.

Most reports of a live run have one row. Its arithmetic is some dozen operations, which cost far less than the calls of
numpy for them. Every operation and its order is that of the detector, so the scores are the same to the last bit;
logarithms and powers are numpy's, whose last bit differs from that of the standard library.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from monitor.detection.rows import Floats
from monitor.detection.scoring.baseline import CHUNK, FALL_Z, PREWHITENED, WINDOW, BaselineFit
from monitor.detection.scoring.detector import (
    FALL,
    HUGE,
    MAX_Z,
    MIN_ALARM_Z,
    MIN_Z,
    SPARSE_STEPS,
    RecentResiduals,
    SignalDetector,
)
from monitor.detection.scoring.scored_rows import SignalReading
from monitor.detection.scoring.threshold import LEAD, SPANS, last_statistics, scan_statistics


def feed_value(detector: SignalDetector, value: float, step: int, gap: int) -> SignalReading:
    """Judge one reported value; `gap`: steps since the row before."""
    baseline, recent, signal = detector.baseline, detector.recent, detector.signal
    if not abs(value) < HUGE or baseline.count == 0:
        columns = np.array([value]), np.ones(1, dtype=bool), np.array([step]), np.array([gap])
        return detector.feed(*columns).reading(0, value)
    x = float(np.log(max(value, 1e-30))) if signal.log else value
    fit = baseline.add([x])
    residual = (x - fit.level) / fit.scale
    residual = abs(residual) if signal.two_sided else residual
    lower_limit = fit.level - FALL_Z * fit.scale
    fall = _fall(recent, x, lower_limit, baseline.count) if signal.is_guarded else 0.0
    whitening = fit.autocorrelation if fit.autocorrelation >= PREWHITENED else 0.0
    z = min(max(_prewhitened(recent, residual, whitening), MIN_Z), MAX_Z)
    recent.z.append(z)
    recent.plain.append(z if whitening == 0.0 else min(max(residual, MIN_Z), MAX_Z))
    drift = _drift(detector, fit, x, lower_limit, whitening, step)
    single = z / detector.thresholds.values.item(0)
    evidence, sure = _evidence(detector, fit, gap) if residual >= MIN_ALARM_Z else (0.0, 0.0)
    if len(recent.z) >= LEAD + CHUNK:
        _calibrate(detector, fit, gap)
    expected, scale = fit.level, fit.scale
    if signal.log:
        expected = float(np.exp(expected))
        scale *= expected
    single = max(0.0, single)
    return SignalReading(value, residual, evidence, single, drift[0], expected, scale, *drift[1:], fall, sure, False)


def _prewhitened(recent: RecentResiduals, z: float, autocorrelation: float) -> float:
    last, recent.last_z = recent.last_z, z
    if autocorrelation == 0.0:
        return z
    innovation: float = (z - autocorrelation * last) / sqrt(1.0 - float(np.float_power(autocorrelation, 2)))
    return innovation


def _drift(
    detector: SignalDetector, fit: BaselineFit, x: float, lower_limit: float, autocorrelation: float, step: int
) -> tuple[float, int, int, float]:
    if detector.drift is None:
        return 0.0, 0, 0, 0.0
    noise = fit.noise
    if autocorrelation != 0.0:  # means of correlated values vary more
        noise *= sqrt((1.0 + autocorrelation) / (1.0 - autocorrelation))
    row = detector.drift.add(x, lower_limit, fit.upper_limit, noise, step)
    if fit.is_level_shift:
        detector.drift.accept()
    return row


def _evidence(detector: SignalDetector, fit: BaselineFit, gap: int) -> tuple[float, float]:
    """The sums that end at the value, in thresholds of an incident and, where they make one, of an action."""
    recent = detector.recent
    spans = last_statistics(recent.z[-3:], recent.plain[-LEAD - 1 :], *_correlations(fit))
    first = 0 if gap >= SPARSE_STEPS else 1
    end = 2 if detector.baseline.count <= CHUNK and fit.scale > fit.noise else len(SPANS)
    statistics, factor = spans[first:end], detector.signal.threshold_factor
    evidence = _largest(statistics, detector.thresholds.values[first:end], factor)
    return evidence, _largest(statistics, detector.thresholds.sure[first:end], factor) if evidence >= 1.0 else 0.0


def _correlations(fit: BaselineFit) -> tuple[float, float]:
    """Return the correlations of a sum with the value before it: for short sums (maybe prewhitened), and long."""
    return (0.0 if fit.autocorrelation >= PREWHITENED else fit.autocorrelation), fit.autocorrelation


def _largest(statistics: Sequence[float], thresholds: Floats, factor: float) -> float:
    ratios = [each / least for each, least in zip(statistics, thresholds.tolist(), strict=True)]
    largest: float = max(0.0, *ratios)
    return largest / factor


def _calibrate(detector: SignalDetector, fit: BaselineFit, gap: int) -> None:
    """The value completes a chunk."""
    recent = detector.recent
    known = np.array(recent.z)
    plain = known if recent.plain == recent.z else np.array(recent.plain)
    statistics = np.empty((len(SPANS), len(known) - LEAD))
    short, long = (np.array([each]) for each in _correlations(fit))
    scan_statistics(known, plain, short, long, statistics)
    size = detector.calibrate(statistics, np.array([gap]), detector.baseline.count)
    del recent.z[:size], recent.plain[:size]


def _fall(recent: RecentResiduals, x: float, lower_limit: float, count: int) -> float:
    first, second, third, last = recent.values
    recent.values = [second, third, last, x]
    if not (x < lower_limit and last < lower_limit and count > WINDOW):
        return 0.0
    if not (first > 0.0 and second > 0.0 and third > 0.0):  # nor where one is unknown
        return 0.0
    part = 1.0 - max(x, last) / min(first, second, third)
    return max(0.0, part) / FALL
