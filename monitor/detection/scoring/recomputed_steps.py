"""The recomputed-step check: do the first steps after a restore give the losses that were recorded before?

The same batch on the same weights gives the same loss up to rounding, and the restored state gives the same updates. So
a difference beyond the rounding of this run shows lost state, another data order, or a computation that went wrong. How
large the rounding is, the earlier replays of the run show; before the first one, generous bounds apply. A learning rate
follows the step alone, and has no rounding: one that differs shows a scheduler that was not restored.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from monitor.detection.rows import Bools, Floats, Ints, Rows
from monitor.detection.scoring.replay_comparison import MAX_ROWS, Comparison, RateDifference
from monitor.detection.scoring.skip_effect import RepeatedSamples, SkipEffect

MIN_DIFFERENT = 2
"""Rows beyond their tolerance that are a mismatch. One alone may be a mean over steps that the restart cut short."""
RELATIVE_TOLERANCE = 1e-3
"""Fraction of the loss that is always tolerated: the next replay may run on another GPU, or on another number of GPUs.
A bfloat16 has 8 bits, but the loss is a mean over many tokens: runs in bfloat16 and in float32 differ by 3e-4 within
eight steps."""
NOISE_FRACTION = 0.01
"""Fraction of the noise from step to step that is always tolerated, for losses near 0. Other batches differ by
about one noise."""
SLACK = 10.0
"""A replay may differ by so many times the largest difference that earlier ones had up to the same row: they are few.
As long as there are none, and in every new process, whose hardware may be another, the tolerance of the k-th row after
the first is k times as large. Where rows are many steps apart, that is enough: in bfloat16 and in float32, the `drill`
recipe differs by less than 5e-4 of the loss over 300 steps."""
MAX_REPLAYS = 8
"""Earlier replays that are remembered."""
DOUBTFUL_STEPS = 8
"""Steps before the onset of an incident that are no reference: the state may be damaged before the loss shows it. More
where the detection took long: twice the steps that it took."""
MAX_SCORE = 1e6
MIN_NOISE = 1e-9
"""Nats."""


def first_doubtful_step(incidents: Iterable[tuple[int, int]]) -> int | None:
    """The step from which on recorded losses are no reference, by (onset, detected step) of incidents among them."""
    return min((onset - max(DOUBTFUL_STEPS, 2 * (detected - onset)) for onset, detected in incidents), default=None)


@dataclass(frozen=True, slots=True, eq=False)
class ReplayVerdict:
    """The rows of one comparison whose losses were computed again: columns of length N, 0 only with another `rate`."""

    restored_step: int
    noise: float
    num_replays: int
    """Earlier replays that the tolerances come from."""
    is_new_process: bool
    """True if another process has computed the steps again, maybe on other hardware."""
    steps: Ints
    recorded: Floats
    recomputed: Floats
    tolerances: Floats
    rate: RateDifference | None = None
    """The learning rate of a step that differs from its record."""

    def is_generous(self) -> bool:
        """True if the tolerances grow from row to row, because too little has been measured."""
        return self.is_new_process or not self.num_replays

    def differences(self) -> Floats:
        """Signed: positive where the loss is higher than recorded."""
        return self.recomputed - self.recorded

    def beyond(self) -> Bools:
        """Return bool[N]: True for rows that differ by more than is tolerated."""
        return np.abs(self.differences()) > self.tolerances

    def is_mismatch(self) -> bool:
        return self.rate is not None or self.has_other_losses()

    def has_other_losses(self) -> bool:
        return bool(np.count_nonzero(self.beyond()) >= MIN_DIFFERENT)

    def scores(self) -> Floats:
        """Return each row's difference in tolerances."""
        return np.minimum(np.abs(self.differences()) / self.tolerances, MAX_SCORE)

    def score(self) -> float:
        """Difference that MIN_DIFFERENT rows exceed, in tolerances: above 1 if losses differ alone."""
        return float(np.sort(self.scores())[-MIN_DIFFERENT])


@dataclass(slots=True)
class RecomputedSteps:
    """The comparison under way, and what earlier ones have shown."""

    pending: Comparison | None = None
    disputed: Comparison | None = None
    """The last mismatch, until the run goes back before it or a person accepts it."""
    skip_effect: SkipEffect | None = None
    """Record of the batches that this replay skips, until it is known whether they came again."""
    scatter: list[Floats] = field(default_factory=list)
    """The differences of earlier replays, each as `Comparison.differences`, oldest first."""

    def __post_init__(self) -> None:
        # One of a release that compared another number of rows says nothing of these.
        self.scatter = [each for each in self.scatter if len(each) == MAX_ROWS]

    @property
    def is_under_way(self) -> bool:
        """True if the next row is compared."""
        return self.pending is not None or self.skip_effect is not None

    def begin(
        self,
        comparison: Comparison | None,
        restored_step: int,
        *,
        is_new_process: bool = True,
        losses: bool = True,
        skip_effect: SkipEffect | None = None,
    ) -> None:
        """A replay from `restored_step` begins. A mismatch is no reference: the same step keeps its first record, if
        `losses` can be compared."""
        disputed = self.disputed
        if losses and disputed is not None and disputed.restored_step == restored_step:
            comparison = disputed.again(is_new_process=is_new_process)
        self.go_back(restored_step)
        self.pending, self.skip_effect = comparison, skip_effect

    def go_back(self, restored_step: int) -> None:
        """Steps from `restored_step` on are computed again, and there is a reason why they cannot be compared."""
        self.pending = self.skip_effect = None
        if self.disputed is not None and restored_step <= self.disputed.restored_step:
            self.disputed = None

    def end_at(self, step: int) -> None:
        """Rows from `step` on are not compared: the loop announced a change there."""
        self.skip_effect = None
        if self.pending is not None:
            self.pending = self.pending.ending_at(step)

    def observe(self, rows: Rows) -> ReplayVerdict | None:
        """Take in the next rows of the replay; the verdict once no further row is compared, if any was."""
        for k in range(len(rows)):
            if self.pending is None:
                return None
            self.pending = self.pending.with_row(rows, k)
            if self.pending.is_over_after(int(rows.steps[k])):
                return self.conclude()
        return None

    def observe_skip(self, rows: Rows) -> RepeatedSamples | None:
        """Take in the next rows of the replay; the evidence that the skipped batches came again, once there is any."""
        for k in range(len(rows)):
            if self.skip_effect is None:
                return None
            found = self.skip_effect.with_row(rows, k)
            if isinstance(found, RepeatedSamples):
                self.skip_effect = None
                return found
            self.skip_effect = found
        return None

    def conclude(self) -> ReplayVerdict | None:
        """End the comparison under way: its verdict; None where fewer than MIN_DIFFERENT losses were compared, and no
        learning rate differs."""
        comparison, self.pending = self.pending, None
        if comparison is None:
            return None
        compared, rate = comparison.compared(), comparison.rate_difference()
        if np.count_nonzero(compared) < MIN_DIFFERENT and rate is None:
            return None
        tolerances = self._tolerances(comparison)
        verdict = ReplayVerdict(
            comparison.restored_step,
            comparison.noise,
            len(self.scatter),
            comparison.is_new_process,
            comparison.steps[compared],
            comparison.recorded[compared],
            comparison.recomputed[compared],
            tolerances[compared],
            rate,
        )
        if verdict.is_mismatch():
            self.disputed = comparison
        else:
            differences = comparison.differences()
            differences[: len(tolerances)][~(differences[: len(tolerances)] <= tolerances)] = np.nan
            self._learn(differences)
        return verdict

    def accept(self) -> None:
        """A person says that the last mismatch is normal for this run: its differences count as measured."""
        if self.disputed is not None:
            differences = self.disputed.differences()
            if self.disputed.compared().any():
                self._learn(np.where(np.isfinite(differences), differences, np.nan))
            self.disputed = None

    def _learn(self, differences: Floats) -> None:
        self.scatter = [*self.scatter, differences][-MAX_REPLAYS:]

    def _tolerances(self, comparison: Comparison) -> Floats:
        """float64[N]: nats by which a row may differ."""
        num = len(comparison.steps)
        noise = max(comparison.noise, MIN_NOISE)
        base = np.maximum(RELATIVE_TOLERANCE * np.abs(comparison.recorded), NOISE_FRACTION * noise)
        growing: Floats = base * np.maximum(np.arange(num), 1)
        if not self.scatter:
            return growing
        measured = np.array(self.scatter)[:, :num]
        is_measured = ~np.isnan(measured).all(axis=0)
        largest = np.maximum.accumulate(np.nan_to_num(measured).max(axis=0))
        floor = growing if comparison.is_new_process else np.where(is_measured, base, growing)
        tolerances: Floats = np.maximum(floor, SLACK * largest)
        return tolerances
