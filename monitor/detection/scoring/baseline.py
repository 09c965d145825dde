"""What a signal is like when nothing is wrong: its level, its noise, and the autocorrelation of its residuals.

The level is the median of the last few values in band; the noise is the robust standard deviation of past residuals.
Both are fitted on an absolute grid of observations, so any split of a stream into reports gives the same fits.
"""

from math import inf, nan, sqrt
from typing import Any, NamedTuple

import numpy as np

from monitor.detection.encoding import dump_fields, load_fields
from monitor.detection.rows import Bools, Floats
from monitor.detection.scoring.robust import median, robust_std
from monitor.detection.scoring.signals import SignalParameters
from monitor.detection.settings import DetectionSettings

PRIOR_THRESHOLD = 9.0  # standard deviations; of a run whose tail is not known yet
CHUNK = 64  # observations that are added to the tail histograms at once
EARLY_BLOCKS = ((2, 1), (4, 2), (CHUNK, 4))  # (below so many observations, observations between two fits)
BLOCK = 16  # observations between two fits later on
LEVEL_VALUES = 12  # the level is the median of so many values
WINDOW = 128  # values and residuals behind the noise
MIN_AUTOCORRELATION = 0.6  # of neighbouring residuals; above it the signal must have been smoothed
SETTLING_VALUES = 8  # values after a declared change that are not enough to judge by
UPDATE_Z = 4.0  # a residual above this does not update the baseline
FALL_Z = 8.0  # nor does one this far below the level before the fall has lasted, once the noise is known


class BaselineFit(NamedTuple):
    """A fit, and the values that are judged by it."""

    num_values: int
    level: float
    """NaN where nothing is known yet: every value is at its level then."""
    scale: float
    """What residuals are divided by: the noise, or more before enough is known."""
    upper_limit: float
    """Values above it are out of band and do not update the baseline."""
    noise: float
    autocorrelation: float
    is_level_shift: bool
    """The next fit takes a level that has long been out of band as the new normal."""
    next_level: float | None
    """The level of the next fit, where enough is known by then for more than gross alarms."""


class Baseline:
    """The state of the fits, updated by the values of one signal in the judged unit."""

    NUMBERS = (
        *("count", "level", "noise", "old_noise", "declared", "autocorrelation"),
        *("values_without_update", "values_fallen", "may_adopt"),
    )
    ARRAYS, LISTS = ("window", "residuals", "block"), ("block",)

    def __init__(
        self,
        signal: SignalParameters,
        settings: DetectionSettings,
        *,
        level: float = 0.0,
        noise: float = 0.0,
        declared: bool = False,
    ) -> None:
        self.signal, self.settings = signal, settings
        self.level, self.noise = level, noise
        self.old_noise = noise  # before the last declared change
        self.declared = declared  # whether the level is learnt anew after a declared change
        self.count = 0  # finite observations since the start, or since the last declared change
        self.window = np.empty(0)  # the last values in band
        self.residuals = np.empty(0)  # the last residuals in band
        self.block: list[float] = []  # values since the last fit
        self.autocorrelation = 0.0  # of neighbouring residuals
        self.values_without_update = 0  # observations since one last updated the baseline
        self.values_fallen = 0  # of these, the last ones that are too low
        self.may_adopt = not signal.is_guarded  # whether a level out of band may become the new normal by lasting

    def restarted(self) -> "Baseline":
        """The baseline after a declared change: the level is learnt anew, the noise is kept meanwhile."""
        return Baseline(self.signal, self.settings, level=self.level, noise=self.noise, declared=True)

    def is_settled(self) -> bool:
        """Enough is known for more than gross alarms (constant within a block)."""
        return self.count - len(self.block) >= (SETTLING_VALUES if self.declared else self.settings.warmup_rows)

    def scale(self) -> float:
        """What residuals are divided by. Before enough is known, only a gross rise makes an alarm."""
        if self.is_settled() and (self.declared or self.count - len(self.block) >= self.signal.warmup_rows):
            return self.noise
        gross_rise = max(self.signal.gross_rise, self.signal.gross_fraction * abs(self.level))
        return max(self.noise, gross_rise / PRIOR_THRESHOLD)

    def update(self, x: Floats) -> list[BaselineFit]:
        """Update with the first of the values x[N], N > 0: as many as can be taken in at once.

        Returns the fits that judge them, each made before its own values were seen.
        """
        return self._update_blocks(x) or [self._update_block(x)]

    def _update_block(self, x: Floats) -> BaselineFit:
        """Take in the rest of the present block, or what there is of it."""
        size = self._block_size()
        return self.add(x[: size - self.count % size].tolist(), size)

    def _block_size(self) -> int:
        """Observations between two fits."""
        if self.count >= CHUNK:
            return BLOCK
        return next(size for below, size in EARLY_BLOCKS if self.count < below)

    def add(self, x: list[float], size: int | None = None) -> BaselineFit:
        """Take in values x[N], N > 0, that do not reach beyond the present block of `size` values."""
        size = size or self._block_size()
        level, scale = self.level if self.count > 0 else nan, self.scale()
        upper_limit = self.level + UPDATE_Z * scale if self.count > 0 or self.declared else inf
        noise, autocorrelation = self.noise, self.autocorrelation
        self.block += x
        self.count += len(x)
        full = self.count % size == 0
        is_level_shift = full and self._fit(scale)
        next_level = self.level if full and self.is_settled() and len(self.window) else None
        return BaselineFit(len(x), level, scale, upper_limit, noise, autocorrelation, is_level_shift, next_level)

    def _fit(self, scale: float) -> bool:
        """Fit level and noise to the full block; True when it takes a long out-of-band level as the new normal."""
        settled, x = self.is_settled(), np.array(self.block)
        residual = x - self.level if self.count > len(x) else np.zeros(len(x))
        in_band = self._in_band(residual, scale)
        num_in_band = np.count_nonzero(in_band)
        out_of_band = 4 * num_in_band <= len(x)
        if not out_of_band:
            self.may_adopt = not self.signal.is_guarded
        fallen = out_of_band and 2 * np.count_nonzero(residual < 0) > len(x)
        self.values_without_update = self.values_without_update + len(x) if out_of_band else 0
        self.values_fallen = self.values_fallen + len(x) if fallen else 0
        lasting = self.values_without_update if self.may_adopt else self.values_fallen
        is_level_shift = lasting >= self.settings.adopt_rows
        if is_level_shift:
            self.values_without_update, self.values_fallen, self.window = 0, 0, np.empty(0)
        elif num_in_band < len(x):
            x, residual = x[in_band], residual[in_band]
        if settled:
            self.residuals = np.concatenate([self.residuals, residual])[-WINDOW:]
        self.window = np.concatenate([self.window, x])[-WINDOW:]
        self.block = []
        if len(self.window):
            levels = median(self.window[None, -LEVEL_VALUES:])
            noises, autocorrelations = self._noise_of(self.window[None], self.residuals[None], levels)
            self.level, self.noise, self.autocorrelation = levels.item(), noises.item(), autocorrelations.item()
        return is_level_shift

    def _update_blocks(self, x: Floats) -> list[BaselineFit]:
        """Take in the next full blocks, as far as all of their values are in band: `_update_block`, vectorised.

        Nothing where the past is short, or where the present fit suggests that some values are out of band.
        """
        if len(self.block) or not self.is_settled() or min(len(self.window), len(self.residuals)) < WINDOW:
            return []
        expected = self._in_band(x - self.level, self.noise)
        num = (len(x) if expected.all() else int(np.argmin(expected))) // BLOCK
        if num < 2:
            return []
        x = x[: num * BLOCK]
        windows = _trailing(self.window, x)
        levels = median(windows[:, -LEVEL_VALUES:])
        residual = x.reshape(num, BLOCK) - np.append(self.level, levels[:-1])[:, None]
        residuals = _trailing(self.residuals, residual.ravel())
        noises, autocorrelations = self._noise_of(windows, residuals, levels)
        scales = np.append(self.noise, noises[:-1])
        in_band = self._in_band(residual, scales[:, None]).all(axis=1)
        num = num if in_band.all() else int(np.argmin(in_band))
        if num:
            self.window, self.residuals = windows[num - 1].copy(), residuals[num - 1].copy()
            self.values_without_update = self.values_fallen = 0
            self.may_adopt = not self.signal.is_guarded
            self.count += num * BLOCK
        return self._apply_fits(levels[:num], noises, autocorrelations)

    def _apply_fits(self, levels: Floats, noises: Floats, autocorrelations: Floats) -> list[BaselineFit]:
        """Make one fit after the other the present one; returns those that they replaced."""
        fits = []
        for level, noise, autocorrelation in zip(
            levels.tolist(), noises.tolist(), autocorrelations.tolist(), strict=False
        ):
            upper_limit = self.level + UPDATE_Z * self.noise
            present = (self.level, self.noise, upper_limit, self.noise, self.autocorrelation)
            fits.append(BaselineFit(BLOCK, *present, False, level))
            self.level, self.noise, self.autocorrelation = level, noise, autocorrelation
        return fits

    def _in_band(self, residual: Floats, scale: Floats | float) -> Bools:
        """Which residuals update the baseline."""
        deviation = np.abs(residual) if self.signal.two_sided else residual
        in_band: Bools = deviation < UPDATE_Z * scale
        if not self.signal.two_sided and self.count - len(self.block) >= WINDOW:
            lowest = -FALL_Z * scale
            if residual.size and residual.min() <= np.max(lowest):
                in_band &= residual > lowest
        return in_band

    def accept(self, x: Floats) -> None:
        """The level of the values x[N], N > 0, is normal from now on."""
        self.window, self.level = x, median(x[None, -LEVEL_VALUES:]).item()
        self.values_without_update = self.values_fallen = 0

    def _noise_of(self, windows: Floats, residuals: Floats, levels: Floats) -> tuple[Floats, Floats]:
        """Noise and autocorrelation per row: of residuals where there are enough, and of differences of neighbours."""
        steps = windows[:, 1:] - windows[:, :-1]
        jitter = robust_std(steps) / sqrt(2.0) if steps.size else np.zeros(1)
        autocorrelations = np.zeros(len(windows))
        if residuals.shape[1] >= 32:
            centred = residuals - median(residuals)[:, None]
            # a two-sided signal that moves steadily lags behind its level: that is no news, so it counts as noise
            noises = robust_std(residuals if self.signal.two_sided else centred)
            noises = np.maximum(noises, 0.7 * jitter)
            if not self.signal.two_sided and residuals.shape[1] >= WINDOW // 2:
                autocorrelations = _autocorrelations(centred)
        else:
            recent = windows[:, -2 * LEVEL_VALUES :]
            noises = robust_std(recent - median(recent)[:, None])
            noises = np.maximum(noises, jitter) if self.is_settled() else noises
        if not jitter.all() and steps.any():  # quantised: half of the neighbours are equal
            sizes = np.abs(steps)
            smallest = np.where(sizes > 0, sizes, np.inf).min(axis=1)
            noises = np.where((jitter == 0) & (smallest < np.inf), np.maximum(noises, 0.5 * smallest), noises)
        old_noise = self.old_noise if self.count < CHUNK else 0.0
        floors = 1e-9 if self.signal.log else 1e-4 * np.abs(levels)
        return np.maximum(noises, np.maximum(floors, max(old_noise, self.signal.min_noise))), autocorrelations

    def state_dict(self) -> dict[str, Any]:
        return dump_fields(self, self.NUMBERS, self.ARRAYS)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_fields(self, state, self.NUMBERS, self.ARRAYS, self.LISTS)


def _autocorrelations(centred: Floats) -> Floats:
    """Lag-1 autocorrelation of each row where it is so strong that the signal must have been smoothed, else 0."""
    correlations = (centred[:, 1:] * centred[:, :-1]).sum(axis=1) / np.maximum((centred * centred).sum(axis=1), 1e-300)
    return np.where(correlations >= MIN_AUTOCORRELATION, np.minimum(correlations, 0.97), 0.0)


def _trailing(past: Floats, values: Floats) -> Floats:
    """The WINDOW values up to the end of each block."""
    ends = np.arange(BLOCK, len(values) + 1, BLOCK)
    trailing: Floats = np.concatenate([past, values])[ends[:, None] + np.arange(WINDOW)]
    return trailing
