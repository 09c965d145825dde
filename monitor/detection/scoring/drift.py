"""Slow divergence: how far the level of the loss has risen above its lowest level so far."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from monitor.detection.encoding import dump_fields, load_fields
from monitor.detection.rows import Floats, Ints
from monitor.detection.scoring.baseline import BLOCK, BaselineFit
from monitor.detection.scoring.scan import LEAD, rolling_mean

UNKNOWN = 1e300  # a lowest level that is not known yet; JSON holds it as a number


class LevelDrift:
    """The lowest level, and how far the mean of the last 12 values lies above it, in noises."""

    NUMBERS = ("lowest_level", "lowest_step", "drift", "values_above_threshold")
    ARRAYS = ("winsorised",)

    def __init__(self) -> None:
        self.winsorised = np.full(LEAD, np.nan)  # the last LEAD values, cut off where they are out of band
        self.lowest_level, self.lowest_step = UNKNOWN, 0
        self.drift = 0.0  # at the last value
        self.values_above_threshold = 0  # observations for which the drift has been an alarm

    def update(
        self,
        x: Floats,
        fits: Sequence[BaselineFit],
        upper_limits: Floats,
        steps: Ints,
        *,
        threshold: float,
        adopt_rows: int,
    ) -> tuple[Floats, Floats]:
        """Take in values x[N] with the fits that judge them. Returns drift[N], and the steps[N] of the lowest level."""
        drifts, lowest_steps = np.zeros(len(x)), np.zeros(len(x))
        known = np.concatenate([self.winsorised, np.minimum(x, upper_limits)])
        self.winsorised = known[-LEAD:]
        means = rolling_mean(known)
        end = 0
        for fit in fits:
            begin, end = end, end + fit.num_values
            lowest_steps[begin:end] = self.lowest_step
            if self.lowest_level != UNKNOWN:
                # means of correlated values vary more
                inflation = sqrt((1.0 + fit.autocorrelation) / (1.0 - fit.autocorrelation))
                drifts[begin:end] = (means[begin:end] - self.lowest_level) / (fit.noise * inflation)
                drifts[begin:end][np.isnan(means[begin:end])] = 0.0
                self.drift = float(drifts[end - 1])
            if fit.is_level_shift:
                self.lowest_level = UNKNOWN
            if fit.next_level is not None:
                self._follow(fit.next_level, int(steps[end - 1]), threshold, adopt_rows)
        return drifts, lowest_steps

    def _follow(self, level: float, step: int, threshold: float, adopt_rows: int) -> None:
        """Keep the lowest level; start again from the present one when it has been out of band for `adopt_rows`."""
        if level <= self.lowest_level:
            self.lowest_level, self.lowest_step = level, step
        self.values_above_threshold = self.values_above_threshold + BLOCK if self.drift >= threshold else 0
        if self.values_above_threshold >= adopt_rows:
            self.lowest_level, self.lowest_step, self.values_above_threshold = level, step, 0

    def state_dict(self) -> dict[str, Any]:
        return dump_fields(self, self.NUMBERS, self.ARRAYS)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_fields(self, state, self.NUMBERS, self.ARRAYS)
