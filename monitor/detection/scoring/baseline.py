"""Baseline of a signal when nothing is wrong: its level, its noise, and the autocorrelation of its residuals.

The level is the median of the last few values in band; the noise is the robust standard deviation of past residuals.
Both are fitted on absolute grids of observations, so any split of a stream into reports gives the same fits.
"""

from collections.abc import Sequence
from itertools import compress
from math import inf, nan, sqrt
from typing import Any, NamedTuple

import numpy as np

from monitor.detection.encoding import dump_fields, load_fields
from monitor.detection.rows import Bools, Floats
from monitor.detection.scoring.signals import SignalParameters
from monitor.detection.settings import DetectionSettings


def robust_std(residuals: Floats) -> Floats:
    """Median absolute deviation from zero, scaled to a normal standard deviation (Hampel 1974), of each row."""
    magnitudes = np.abs(residuals)
    magnitudes.sort()
    return 1.4826 * _middle(magnitudes)


def median(values: Floats) -> Floats:
    """The median of each row. np.median is ten times slower on so few values."""
    ordered = values.copy()
    ordered.sort()
    return _middle(ordered)


def _middle(ordered: Floats) -> Floats:
    half = ordered.shape[-1] // 2
    upper: Floats = ordered[..., half]
    return upper if ordered.shape[-1] % 2 else (ordered[..., half - 1] + upper) / 2.0


PRIOR_THRESHOLD = 9.0  # standard deviations; of a run whose tail is not known yet
CHUNK = 64  # observations that are added to the tail histograms at once
EARLY_BLOCKS = ((2, 1), (4, 2), (CHUNK, 4))  # (below so many observations, observations between two fits)
BLOCK = 8  # observations between two fits of the level later on
NOISE_BLOCK = 2 * BLOCK  # the same of the noise and of the usual level; of the autocorrelation: CHUNK
LEVEL_VALUES = 12  # the level is the median of so many values
WINDOW = 128  # values and residuals behind the noise
OF_WINDOW = np.arange(WINDOW)
USUAL_LAG = 0.4  # of half a window: how far the middle of its newer half lies behind that of the last LEVEL_VALUES
MIN_AUTOCORRELATION = 0.3  # of neighbouring residuals; less may be chance
MAY_BE_SMOOTHED = 0.6  # above it the signal may have been smoothed
PREWHITENED = 0.7  # above it, it is judged as if it had been
SETTLING_VALUES = 8  # values after a declared change that are not enough to judge by
MAX_VARIED = 0.95  # of the neighbours in a window differ, where some may have piled up on one value
LOWEST = -1e300  # a level that is not known; JSON holds it as a number
UPDATE_Z = 4.0  # a residual above this does not update the baseline
FALL_Z = 8.0  # nor does one this far below the level before the fall has lasted, once the noise is known


class BaselineFit(NamedTuple):
    """A fit, and the values that are judged by it."""

    num_values: int
    level: float
    """NaN where nothing is known yet: every value is at its level then."""
    scale: float
    """Divisor of the residuals: the noise, or more before enough is known."""
    upper_limit: float
    """Values above it are out of band and do not update the baseline."""
    noise: float
    autocorrelation: float
    """Autocorrelation of neighbouring residuals if it is at least MIN_AUTOCORRELATION, else 0."""
    is_level_shift: bool
    """The next fit takes a level that has long been out of band as the new normal."""


class BaselineFits(NamedTuple):
    """Several fits, and the values that are judged by them."""

    num_values: int
    numbers: Floats
    """float64[5, num_values]: level, scale, upper limit, noise and autocorrelation of the fit behind each value."""
    is_level_shift: bool = False


class Baseline:
    """The state of the fits, updated by the values of one signal in the judged unit."""

    NUMBERS = (
        *("count", "level", "usual", "noise", "old_noise", "declared", "autocorrelation"),
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
        self.usual = LOWEST  # of a guarded signal: the level over a longer time, where it is known
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
        """True if enough is known for more than gross alarms (constant within a block)."""
        return self.count - len(self.block) >= (SETTLING_VALUES if self.declared else self.settings.warmup_rows)

    def scale(self) -> float:
        """Return the divisor of the residuals. Before enough is known, only a gross rise makes an alarm."""
        if self.is_settled() and (self.declared or self.count - len(self.block) >= self.signal.warmup_rows):
            return self.noise
        gross_rise = max(self.signal.gross_rise, self.signal.gross_fraction * abs(self.level))
        return max(self.noise, gross_rise / PRIOR_THRESHOLD)

    def update(self, x: Floats) -> Sequence[BaselineFit | BaselineFits]:
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
        level = max(self.level, self.usual) if self.count > 0 else nan
        scale = self.scale()
        upper_limit = self.level + UPDATE_Z * scale if self.count > 0 or self.declared else inf
        noise, autocorrelation = self.noise, self.autocorrelation
        self.block += x
        self.count += len(x)
        full = self.count % size == 0
        is_level_shift = full and self._fit(scale)
        return BaselineFit(len(x), level, scale, upper_limit, noise, autocorrelation, is_level_shift)

    def _fit(self, scale: float) -> bool:
        """Fit level and noise to the full block; True when it takes a long out-of-band level as the new normal.

        By plain numbers: an array of so few values costs more than its arithmetic.
        """
        settled, x = self.is_settled(), self.block
        residual = [value - self.level for value in x] if self.count > len(x) else [0.0] * len(x)
        in_band = self._which_in_band(residual, scale)
        num_in_band = sum(in_band)
        out_of_band = 4 * num_in_band <= len(x)
        if not out_of_band:
            self.may_adopt = not self.signal.is_guarded
        fallen = out_of_band and 2 * sum(value < 0 for value in residual) > len(x)
        self.values_without_update = self.values_without_update + len(x) if out_of_band else 0
        self.values_fallen = self.values_fallen + len(x) if fallen else 0
        lasting = self.values_without_update if self.may_adopt else self.values_fallen
        is_level_shift = lasting >= self.settings.adopt_rows
        if is_level_shift:
            self.values_without_update, self.values_fallen = 0, 0
            self.window, self.usual = np.empty(0), LOWEST
        elif num_in_band < len(x):
            x, residual = list(compress(x, in_band)), list(compress(residual, in_band))
        if settled:
            self.residuals = np.concatenate([self.residuals, residual])[-WINDOW:]
        self.window = np.concatenate([self.window, x])[-WINDOW:]
        self.block = []
        if len(self.window):
            self.level = _median(self.window[-LEVEL_VALUES:].tolist())
            if self.count < CHUNK or self.count % NOISE_BLOCK == 0 or is_level_shift:
                windows = self.window[None]
                self.noise = self._noise_of(windows, self.residuals[None], np.array([self.level])).item()
                self.usual = self._usual(windows).item() if self.signal.is_guarded else LOWEST
        if self.count % CHUNK == 0:
            self.autocorrelation = self._autocorrelations(self.residuals[None]).item()
        return is_level_shift

    def _which_in_band(self, residual: list[float], scale: float) -> list[bool]:
        """Return `_in_band` of a few residuals."""
        high, low = UPDATE_Z * scale, -inf
        if self.signal.two_sided:
            return [abs(value) < high for value in residual]
        if self.count - len(self.block) >= WINDOW:
            low = -FALL_Z * scale
        return [low < value < high for value in residual]

    def expected(self) -> float:
        """The level that values are judged by: the way back from an easy stretch of the data is no rise."""
        return max(self.level, self.usual)

    def _usual(self, windows: Floats) -> Floats:
        """The usual level per row: the median of the newer half of the values, less its lag where they fall."""
        if not self.signal.is_guarded or windows.shape[1] < WINDOW:
            return np.full(len(windows), LOWEST)
        older, newer = median(windows.reshape(len(windows), 2, -1)).T
        usual: Floats = newer - USUAL_LAG * np.maximum(older - newer, 0.0)
        return usual

    def _update_blocks(self, x: Floats) -> Sequence[BaselineFits]:
        """Take in the next full blocks, as far as all of their values are in band: `_update_block`, vectorised.

        Nothing where the past is short, or where the present fit suggests that some values are out of band.
        """
        if len(x) < 2 * BLOCK or len(self.block) or min(len(self.window), len(self.residuals)) < WINDOW:
            return []
        expected = self._in_band(x - self.level, self.noise)
        num_expected = int(expected.argmin())  # 0 where none is False
        num = (len(x) if expected[num_expected] else num_expected) // BLOCK
        if num < 2:
            return []
        known, ends = np.concatenate([self.window, x[: num * BLOCK]]), BLOCK * np.arange(num + 1)
        # by fits, beginning with the present one: level, usual level, noise and autocorrelation
        fits = np.empty((4, num + 1))
        fits[:, 0] = self.level, self.usual, self.noise, self.autocorrelation
        levels = fits[0]
        levels[1:] = median(known[ends[1:, None] + OF_WINDOW[-LEVEL_VALUES:]])
        residual = x[: num * BLOCK].reshape(num, BLOCK) - levels[:-1, None]
        residuals = np.concatenate([self.residuals, residual.ravel()])
        phase = self.count % NOISE_BLOCK  # the noise of a block is that of the last fit of the noise before it
        last = np.arange(NOISE_BLOCK - phase, num * BLOCK + 1, NOISE_BLOCK)
        part = last[:, None] + OF_WINDOW
        windows, num_fits = known[part], (phase + ends) // NOISE_BLOCK
        of_noise = np.empty((2, len(last) + 1))
        of_noise[:, 0] = fits[1:3, 0]
        of_noise[0, 1:] = self._usual(windows)
        of_noise[1, 1:] = self._noise_of(windows, residuals[part], levels[last // BLOCK])
        fits[1:3] = of_noise[:, num_fits]
        fits[3] = self.autocorrelation
        chunk_ends = np.arange(CHUNK - self.count % CHUNK, num * BLOCK + 1, CHUNK)
        if len(chunk_ends):
            new = self._autocorrelations(residuals[chunk_ends[:, None] + OF_WINDOW])
            fits[3] = np.append(self.autocorrelation, new)[(self.count % CHUNK + ends) // CHUNK]
        in_band = self._in_band(residual, fits[2, :-1, None])
        if np.count_nonzero(in_band) < in_band.size:
            num = int(in_band.all(axis=1).argmin())
            if not num:
                return []
        self.level, self.usual, self.noise, self.autocorrelation = fits[:, num].tolist()
        self.window = known[num * BLOCK : num * BLOCK + WINDOW].copy()
        self.residuals = residuals[num * BLOCK : num * BLOCK + WINDOW].copy()
        self.values_without_update = self.values_fallen = 0
        self.may_adopt = not self.signal.is_guarded
        self.count += num * BLOCK
        level, usual, noise, autocorrelation = fits[:, :num]
        numbers = np.empty((5, num))
        numbers[0], numbers[1], numbers[3] = np.maximum(level, usual), noise, noise
        numbers[2] = level + UPDATE_Z * noise
        numbers[4] = autocorrelation
        return [BaselineFits(num * BLOCK, numbers.repeat(BLOCK, axis=1))]

    def _in_band(self, residual: Floats, scale: Floats | float) -> Bools:
        """Return bool[N]: True for residuals that update the baseline."""
        deviation = np.abs(residual) if self.signal.two_sided else residual
        in_band: Bools = deviation < UPDATE_Z * scale
        if not self.signal.two_sided and self.count - len(self.block) >= WINDOW:
            in_band &= residual > -FALL_Z * scale
        return in_band

    def accept(self, x: Floats) -> None:
        """The level of the values x[N], N > 0, is normal from now on."""
        self.window, self.level = x, median(x[None, -LEVEL_VALUES:]).item()
        self.usual = LOWEST
        self.values_without_update = self.values_fallen = 0

    def _autocorrelations(self, residuals: Floats) -> Floats:
        """Lag-1 autocorrelation of each row where it is at least MIN_AUTOCORRELATION, else 0."""
        if self.signal.two_sided or residuals.shape[1] < WINDOW // 2:
            return np.zeros(len(residuals))
        centred = residuals - median(residuals)[:, None]
        products, squares = (centred[:, 1:] * centred[:, :-1]).sum(axis=1), (centred * centred).sum(axis=1)
        correlations = products / np.maximum(squares, 1e-300)
        return np.where(correlations >= MIN_AUTOCORRELATION, np.minimum(correlations, 0.97), 0.0)

    def _noise_of(self, windows: Floats, residuals: Floats, levels: Floats) -> Floats:
        """Noise per row: of residuals where there are enough, and of differences of neighbours."""
        steps = windows[:, 1:] - windows[:, :-1]
        jitter = robust_std(steps) / sqrt(2.0) if steps.size else np.zeros(1)
        if residuals.shape[1] >= 32:
            centred = residuals - median(residuals)[:, None]
            # a two-sided signal that moves steadily lags behind its level: that is no news, so it counts as noise
            noises = robust_std(residuals if self.signal.two_sided else centred)
            noises = np.maximum(noises, 0.7 * jitter)
        else:
            recent = windows[:, -2 * LEVEL_VALUES :]
            noises = robust_std(recent - median(recent)[:, None])
            noises = np.maximum(noises, jitter) if self.is_settled() else noises
        if np.count_nonzero(steps) < steps.size:
            noises = np.maximum(noises, _noise_of_equal(windows, steps, jitter))
        old_noise = self.old_noise if self.count < CHUNK else 0.0
        floors = 1e-9 if self.signal.log else 1e-4 * np.abs(levels)
        noise: Floats = np.maximum(noises, np.maximum(floors, max(old_noise, self.signal.min_noise)))
        for k in np.flatnonzero(~steps.any(axis=1)).tolist() if steps.size else []:
            # a log with few digits that stands still: the noise is that of the fit before
            noise[k] = max(noise[k], noise[k - 1] if k else self.noise)
        return noise

    def state_dict(self) -> dict[str, Any]:
        return dump_fields(self, self.NUMBERS, self.ARRAYS)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_fields(self, state, self.NUMBERS, self.ARRAYS, self.LISTS)


def _noise_of_equal(windows: Floats, steps: Floats, jitter: Floats) -> Floats:
    """Lower bound of the noise of each row where many neighbours are equal; else 0.

    Where half of them are, the log is quantised: half of the smallest step. Where a quarter or more of the values are
    one value, the noise is that of the others around it: a loss that is cut off at zero would have none otherwise.
    """
    sizes = np.abs(steps)
    smallest = np.where(sizes > 0, sizes, np.inf).min(axis=1)
    noises = np.where((jitter == 0) & (smallest < np.inf), 0.5 * smallest, 0.0)
    for k in np.flatnonzero(np.count_nonzero(steps, axis=1) < MAX_VARIED * steps.shape[1]):
        values, counts = np.unique(windows[k], return_counts=True)
        deviations = np.abs(windows[k] - values[counts.argmax()])
        beside = deviations[deviations > 0]
        if beside.size and 4 * beside.size <= 3 * deviations.size and 2 * (len(values) - 1) > beside.size:
            # a log with few digits would repeat the others too
            noises[k] = max(noises[k], 1.4826 * float(np.median(beside)))
    return noises


def _median(values: list[float]) -> float:
    """Return `median` of a few values."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2.0
