"""One signal's detector: how surprising are the last rows, given the run's own past?

Values in, scores out; vectorised over the rows of a report. Three steps:

1. The residual z of a value: its distance from the median of the last few values in band, in robust standard deviations
   of past residuals. Values out of band do not update the baseline. Where neighbouring residuals are so correlated that
   the signal may have been smoothed, z is what the residual before did not predict.
2. Over each span of w rows the sum of all z but the largest, over sqrt(w - 1): a scan statistic (Glaz, Naus and
   Wallenstein 2001) that one hard batch cannot raise, whatever its size. What the value before predicts of the sum is
   taken off (see `scan`). A single row has its own, span 1.
3. Each statistic against the threshold from its own tail (see `threshold`): evidence 1.0 is the alarm.

A slow divergence has a statistic of its own (see `drift`).

Levels are fitted on an absolute grid of observations, so any split of a stream into reports gives the same scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any

import numpy as np

from monitor.detection.encoding import dump_fields, load_fields
from monitor.detection.rows import Bools, Floats, Ints
from monitor.detection.scoring.baseline import CHUNK, FALL_Z, PREWHITENED, WINDOW, Baseline, BaselineFit, BaselineFits
from monitor.detection.scoring.drift import LevelDrift
from monitor.detection.scoring.scored_rows import Scores
from monitor.detection.scoring.signals import SignalParameters
from monitor.detection.scoring.threshold import LEAD, SPANS, TailThresholds, scan_statistics
from monitor.detection.settings import DetectionSettings


@dataclass(slots=True)
class RecentResiduals:
    """Last observations that the detector keeps beside its baseline."""

    z: list[float] = field(default_factory=lambda: [0.0] * LEAD)
    """Prewhitened residuals of this chunk, after the LEAD before it."""
    plain: list[float] = field(default_factory=lambda: [0.0] * LEAD)
    """Residuals without prewhitening; stored as empty where they are `z`."""
    last_z: float = 0.0
    """The last residual as it was before prewhitening, without limits."""
    last_alarm: int = -CHUNK
    """The observation of the last alarm."""
    values: list[float] = field(default_factory=lambda: [nan] * 4)
    """The last values, oldest first."""

    NUMBERS = ("last_z", "last_alarm")
    ARRAYS = ("z", "plain", "values")


MIN_Z, MAX_Z = -4.0, 60.0  # limits of the residuals that are summed
HUGE = 1e100  # no training reaches it: as good as infinite, and sums of squares below it do not overflow
LONG_PERIOD = 4 * CHUNK  # observations between two calibrations of the thresholds, in a run that has more
FALL = 0.3  # of the loss, within a row or two: repeated data, a label that leaks, a mask that is gone
UNCORRELATED = np.zeros(1)  # the autocorrelation of values that have none
MIN_ALARM_Z = 2.0  # a row below this is no alarm, whatever came before it
SPARSE_STEPS = 5
"""Steps between the rows of a sparse log, where a real spike may be one row: its size against the tail decides. In
closer rows a single one is a hard batch, whatever its size, unless the next row is out of band too."""


Fit = BaselineFit | BaselineFits


class SignalDetector:
    """See the module. State is a few hundred numbers: `state_dict` / `load_state_dict` are exact."""

    def __init__(self, signal: SignalParameters, settings: DetectionSettings) -> None:
        self.signal, self.settings = signal, settings
        self.probability = signal.false_alarm_share * settings.false_alarms_per_10k / 1e4  # of each sum at a row
        self.thresholds = TailThresholds()
        self.baseline = Baseline(signal, settings)
        self.drift = LevelDrift() if signal.detects_drift else None
        self.recent = RecentResiduals()

    def shift(self) -> None:
        """A declared change: the level is learnt anew from the rows that follow; noise and thresholds stay.

        Until a few rows are known only a gross rise over the old level is an alarm. A change is ignored while the one
        before it settles (a chunk): even if one is declared at every row, seven rows in eight are judged.
        """
        baseline = self.baseline
        if baseline.is_settled() and not (baseline.declared and baseline.count < CHUNK):
            self.baseline, self.recent = baseline.restarted(), RecentResiduals()
            self.drift = None if self.drift is None else self.drift.restarted()

    def feed(self, values: Floats, present: Bools, steps: Ints, gaps: Ints) -> Scores:
        """Judge N rows; `gaps`: steps since the row before."""
        finite = present & (np.abs(values) < HUGE)
        where = finite.nonzero()[0]
        x = values[where]
        if self.signal.log:
            x = np.log(np.maximum(x, 1e-30))
        table = np.zeros((11, len(values)))  # as in Scores
        table[4:6] = np.nan
        non_finite = present & ~finite
        non_finite_rows = non_finite.nonzero()[0]
        num_before = np.cumsum(finite)[non_finite_rows] if len(non_finite_rows) else non_finite_rows
        baseline, start = self.baseline, 0
        for end in sorted({*num_before.tolist(), len(x)}):
            while start < end:
                fits = self._fits(x[start:end])
                at = where[start : start + sum(fit.num_values for fit in fits)]
                table[:, at] = self._score(x[start : start + len(at)], fits, steps[at], gaps[at])
                start += len(at)
            if len(non_finite_rows) and baseline.count > 0:
                table[4:6, non_finite_rows[num_before == end]] = [[baseline.expected()], [baseline.scale()]]
        if self.signal.log:
            table[4] = np.exp(table[4])
            table[5] *= table[4]
        columns: list[Any] = [*table[:6], *table[6:8].astype(np.int64), *table[8:], non_finite]
        return Scores(*columns)

    def _fits(self, x: Floats) -> list[Fit]:
        """The fits of the first of these values: up to a calibration that may change what the baseline adopts."""
        baseline, fits, start = self.baseline, list[Fit](), 0
        while start < len(x):
            count = baseline.count
            fits += baseline.update(x[start:])
            start += baseline.count - count
            if baseline.values_without_update and baseline.count % _period(baseline.count) == 0:
                break
        return fits

    def _score(self, x: Floats, fits: Sequence[Fit], steps: Ints, gaps: Ints) -> Floats:
        """Judge values that the baseline has taken in. Returns the table of `feed` for them."""
        recent = self.recent
        level, scale, upper_limit, noise, autocorrelation = _by_value(fits)
        whitening = short = long = UNCORRELATED
        if np.count_nonzero(autocorrelation):
            whitening = np.where(autocorrelation >= PREWHITENED, autocorrelation, 0.0)
            short, long = (self._of_waiting(each, len(x)) for each in (autocorrelation - whitening, autocorrelation))
        table = np.empty((11, len(x)))
        table[4] = level if self.baseline.count > len(x) else np.where(np.isnan(level), x, level)
        table[5] = scale
        table[0] = (x - table[4]) / scale
        if self.signal.two_sided:
            np.abs(table[0], out=table[0])
        lower_limit = table[4] - FALL_Z * table[5]
        table[9] = self._fall(x, lower_limit) if self.signal.is_guarded else 0.0
        z = self._prewhitened(table[0], whitening)
        known = _with_past(recent.z, z)
        plain = known if z is table[0] and recent.plain == recent.z else _with_past(recent.plain, table[0])
        if self.drift is None:
            table[3] = table[6:9] = 0.0
        else:
            of_means = noise
            if np.count_nonzero(whitening):  # means of correlated values vary more
                of_means = noise * np.sqrt((1.0 + whitening) / (1.0 - whitening))
            drift = self._drift(self.drift, fits, x, (lower_limit, upper_limit, of_means), steps)
            table[3], table[6:9] = drift[0], drift[1:]
        statistics = np.empty((len(SPANS), len(known) - LEAD))
        scan_statistics(known, plain, short, long, statistics)
        num_calibrated = self._compare(statistics, table, noise, gaps)
        recent.z = known[num_calibrated:].tolist()
        recent.plain = recent.z.copy() if plain is known else plain[num_calibrated:].tolist()
        return table

    def _compare(self, statistics: Floats, table: Floats, noise: Floats, gaps: Ints) -> int:
        """Compare statistics[S, M + N] of the last N values with the thresholds, from one calibration to the next.

        The M values before them were compared before, and wait for a calibration. Returns how many values had theirs.
        """
        size = table.shape[1]
        first, num_before, num_calibrated, start = self.baseline.count - size, statistics.shape[1] - size, 0, 0
        while start < size:
            end = min(start + _period(first + start) - (first + start) % _period(first + start), size)
            part, thresholds = statistics[:, num_before + start : num_before + end], self.thresholds
            columns, count = table[:, start:end], first + end
            columns[2] = np.maximum(part[0] / thresholds.values[0], 0.0)
            sparse = gaps[start:end] >= SPARSE_STEPS
            # long sums would make an alarm of less than a gross rise
            early = (table[5] > noise)[start:end] if count <= CHUNK else None
            # the sums of a spike outlast it: an alarm needs a row that adds to them
            evidence = self._evidence(part, thresholds.values, sparse, early)
            columns[1] = np.where(columns[0] >= MIN_ALARM_Z, evidence, 0.0)
            columns[10] = 0.0
            alarms = columns[1] >= 1.0
            if np.count_nonzero(alarms):
                columns[10] = np.where(alarms, self._evidence(part, thresholds.sure, sparse, early), 0.0)
            waiting = statistics[:, num_calibrated : num_before + end]
            if waiting.shape[1] >= CHUNK:
                num_calibrated += self.calibrate(waiting, gaps[:end], count)
            start = end
        return num_calibrated

    def _evidence(self, statistics: Floats, thresholds: Floats, sparse: Bools, early: Bools | None) -> Floats:
        """The largest of the statistics[S, N] of each value, in these thresholds. `early`: long sums do not count."""
        ratios = statistics / thresholds[:, None]
        ratios[0] *= sparse
        if early is not None:
            ratios[2:, early] = 0.0
        evidence: Floats = np.maximum(np.maximum.reduce(ratios), 0.0) / self.signal.threshold_factor
        return evidence

    def _of_waiting(self, numbers: Floats, size: int) -> Floats:
        """Numbers of `size` new values, after those of the values that wait: these are of the chunk of the first."""
        new = np.broadcast_to(numbers, size)
        return np.concatenate([np.full(len(self.recent.z) - LEAD, new[0]), new])

    def _prewhitened(self, z: Floats, autocorrelation: Floats) -> Floats:
        """z without what the value before it predicts (Box and Jenkins 1970); of unit variance like z."""
        last, self.recent.last_z = self.recent.last_z, float(z[-1])
        if not np.count_nonzero(autocorrelation):
            return z
        before = np.concatenate([[last], z[:-1]])
        innovation = (z - autocorrelation * before) / np.sqrt(1.0 - np.float_power(autocorrelation, 2))
        return np.where(autocorrelation == 0.0, z, innovation)

    def _drift(
        self, drift: LevelDrift, fits: Sequence[Fit], x: Floats, limits: Sequence[Floats], steps: Ints
    ) -> Floats:
        """`limits`: lower and upper limit, and the noise. See `LevelDrift.update`."""
        if not any(fit.is_level_shift for fit in fits):
            return drift.update(x, limits[0], limits[1], limits[2], steps)
        parts, start, each = [], 0, np.array([np.broadcast_to(limit, x.shape) for limit in limits])
        for fit in fits:
            part = slice(start, start + fit.num_values)
            lower, upper, noise = each[:, part]
            parts.append(np.broadcast_to(drift.update(x[part], lower, upper, noise, steps[part]), (4, fit.num_values)))
            if fit.is_level_shift:
                drift.accept()  # the level that was out of band is the new normal
            start = part.stop
        columns: Floats = np.concatenate(parts, axis=1)
        return columns

    def _fall(self, x: Floats, lower_limits: Floats) -> Floats | float:
        """Two rows that lie far below the three before them, in units of FALL: no learning makes such a step."""
        known = np.concatenate([self.recent.values, x])
        self.recent.values = known[-4:].tolist()
        low = x < lower_limits
        if not np.count_nonzero(low):
            return 0.0
        low &= known[3:-1] < lower_limits  # and the value before
        before = np.minimum(np.minimum(known[:-4], known[1:-3]), known[2:-2])
        sudden = low & (before > 0.0) & (np.arange(self.baseline.count - len(x), self.baseline.count) >= WINDOW)
        part = 1.0 - np.maximum(x, known[3:-1]) / np.where(sudden, before, 1.0)
        return np.where(sudden, np.maximum(part, 0.0) / FALL, 0.0)

    def is_raised(self) -> bool:
        """The level has been out of band since an alarm, or has risen slowly, and nobody has accepted it."""
        baseline = self.baseline
        raised = baseline.values_without_update > baseline.values_fallen
        return raised or (self.drift is not None and self.drift.rise is not None)

    def answer(self) -> None:
        """A person has decided about the level out of band: it becomes normal if it lasts."""
        self.baseline.may_adopt = True

    def accept(self, values: Floats) -> None:
        """A person says that the level of these values, the last ones, is normal."""
        x = values[np.isfinite(values)]
        if len(x):
            self.baseline.accept(x)
        recent = self.recent  # the sums over the last rows begin anew
        recent.z, recent.plain = np.minimum(recent.z, 0.0).tolist(), np.minimum(recent.plain, 0.0).tolist()
        if self.drift is not None:
            self.drift.accept()

    def calibrate(self, statistics: Floats, gaps: Ints, count: int) -> int:
        """Add the full chunks to the tail histograms, without alarms and the rows around them; fit the thresholds.

        `count`: observations up to the last value, which statistics and gaps end with. Returns the size of the chunks.
        """
        recent, num_values = self.recent, statistics.shape[1]
        first = count - num_values
        size: int = num_values // CHUNK * CHUNK
        ends = np.arange(CHUNK - 1, size, CHUNK)
        sparse = gaps[ends - num_values] >= SPARSE_STEPS  # counted from the last value
        statistics = statistics[:, :size]
        counted = statistics < self.thresholds.values[:, None]
        counted[0] |= np.repeat(~sparse, CHUNK)  # hard batches count
        if first - recent.last_alarm <= LEAD or not counted.all():
            rows = np.arange(first, first + size)
            quiet = counted.all(axis=0)
            last_alarms = np.maximum.accumulate(np.where(quiet, recent.last_alarm, rows))
            recent.last_alarm = int(last_alarms[-1])
            counted &= rows - last_alarms > LEAD
            if not quiet.all():
                counted &= ~_leads_to_alarm(np.asarray(~quiet))
        if first == 0:
            counted[:, : self.settings.warmup_rows] = False
        self.thresholds.add(statistics, counted, CHUNK)
        if count % _period(count) == 0:
            self.thresholds.fit(self.probability)
            # a baseline that has taken in more values already had no such stretch here: see `_fits`
            stretch = self.baseline.values_without_update if count == self.baseline.count else 0
            if stretch and recent.last_alarm < count - stretch:
                self.baseline.may_adopt = True  # nobody was alarmed
        return size

    def state_dict(self) -> dict[str, Any]:
        recent = dump_fields(self.recent, RecentResiduals.NUMBERS, RecentResiduals.ARRAYS)
        return {
            "baseline": self.baseline.state_dict(),
            "drift": None if self.drift is None else self.drift.state_dict(),
            "recent": recent | ({"plain": ""} if self.recent.plain == self.recent.z else {}),
            "thresholds": self.thresholds.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError for a part or a number that the state lacks; the detector is of no use then."""
        self.baseline.load_state_dict(state["baseline"])
        if self.drift is not None:
            self.drift.load_state_dict(state["drift"])
        arrays = RecentResiduals.ARRAYS
        load_fields(self.recent, state["recent"], RecentResiduals.NUMBERS, arrays, lists=arrays)
        self.recent.plain = self.recent.plain or self.recent.z.copy()
        self.thresholds.load_state_dict(state["thresholds"])


def _period(count: int) -> int:
    """Observations between two calibrations of the thresholds, after so many."""
    return LONG_PERIOD if count >= LONG_PERIOD else CHUNK


def _with_past(past: Sequence[float], z: Floats) -> Floats:
    """Residuals z[N], within the limits of what is summed, after those before them."""
    return np.concatenate([past, np.minimum(np.maximum(z, MIN_Z), MAX_Z)])


def _by_value(fits: Sequence[Fit]) -> Floats:
    """(level, scale, upper limit, noise, autocorrelation) of every value; of all at once where they share one fit."""
    if len(fits) == 1 and isinstance(fits[0], BaselineFit):
        return np.array(fits[0][1:6])[:, None]
    numbers, start = np.empty((5, sum(fit.num_values for fit in fits))), 0
    for fit in fits:
        end = start + fit.num_values
        numbers[:, start:end] = fit.numbers if isinstance(fit, BaselineFits) else np.array(fit[1:6])[:, None]
        start = end
    return numbers


def _leads_to_alarm(alarms: Bools) -> Bools:
    """Return bool[N]: True for rows of full chunks at most LEAD rows before an alarm in the same chunk.

    A spike begins before its sums are an alarm: its first rows are no hard batches of a healthy run.
    """
    numbers = np.arange(CHUNK)
    next_alarms = np.where(alarms.reshape(-1, CHUNK), numbers, CHUNK + LEAD)
    next_alarms = np.minimum.accumulate(next_alarms[:, ::-1], axis=1)[:, ::-1]
    leads: Bools = (next_alarms - numbers <= LEAD).ravel()
    return leads
