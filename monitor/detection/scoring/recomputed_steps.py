"""The recomputed-step check: do the first steps after a restore give the losses that were recorded before?

The same batch on the same weights gives the same loss up to rounding, and the restored state gives the same updates. So
a difference beyond the rounding of this run shows lost state, another data order, or a computation that went wrong. How
large the rounding is, the earlier replays of the run show; before the first one, generous bounds apply.

N is the number of recorded rows, at most MAX_ROWS.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from monitor.detection.encoding import pack, restore, unpack
from monitor.detection.rows import Bools, Floats, Ints, Rows

MAX_ROWS = 8
"""Rows that are compared: the first ones show all, and rounding grows with every update."""
MIN_DIFFERENT = 2
"""Rows beyond their tolerance that are a mismatch. One alone may be a mean over steps that the restart cut short."""
RELATIVE_TOLERANCE = 1e-3
"""Of the loss, always tolerated: the next replay may run on another GPU, or on another number of them. A bfloat16 has 8
bits, but the loss is a mean over many tokens: runs in bfloat16 and in float32 differ by 3e-4 within eight steps."""
NOISE_FRACTION = 0.01
"""Of the noise from step to step, always tolerated too, for losses near 0. Other batches differ by about one noise."""
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

NUMBERS = ("restored_step", "noise", "is_new_process", "end_step")
COLUMNS = ("batches", "learning_rates", "recorded", "recomputed")


def first_doubtful_step(incidents: Iterable[tuple[int, int]]) -> int | None:
    """The step from which on recorded losses are no reference, by (onset, detected step) of incidents among them."""
    return min((onset - max(DOUBTFUL_STEPS, 2 * (detected - onset)) for onset, detected in incidents), default=None)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Recorded rows, and the losses that were computed again at their steps so far: columns of length N."""

    restored_step: int
    noise: float
    """From step to step, one robust standard deviation."""
    is_new_process: bool
    """Whether another process computes the steps again, maybe on other hardware."""
    end_step: int
    """Rows from this step on are not compared."""
    steps: Ints
    batches: Floats
    learning_rates: Floats
    """NaN where it was not recorded."""
    recorded: Floats
    recomputed: Floats
    """NaN where it has not been computed again; infinite where it was not finite."""

    @classmethod
    def of(
        cls, restored_step: int, rows: Rows, *, noise: float, is_new_process: bool = True, end_step: int | None = None
    ) -> Self | None:
        """With the first of these rows before `end_step` as the record; None where none can serve.

        A row serves that has a loss and a batch index, up to the first loss that is not finite.
        """
        if not len(rows) or not {"loss", "batch_index"} <= rows.metrics.keys():
            return None
        loss, batches = rows.metrics["loss"], rows.metrics["batch_index"]
        is_damaged = np.cumsum(rows.present["loss"] & ~np.isfinite(loss)) > 0
        serves = np.isfinite(loss) & np.isfinite(batches) & ~is_damaged & (rows.steps >= restored_step)
        if end_step is not None:
            serves &= rows.steps < end_step
        chosen = np.flatnonzero(serves)[:MAX_ROWS]
        if not len(chosen):
            return None
        steps, nothing = rows.steps[chosen], np.full(len(chosen), np.nan)
        rates = rows.metrics["lr"][chosen] if "lr" in rows.metrics else nothing
        return cls(
            restored_step=restored_step,
            noise=noise,
            is_new_process=is_new_process,
            end_step=int(steps[-1]) + 1,
            steps=steps,
            batches=batches[chosen],
            learning_rates=rates,
            recorded=loss[chosen],
            recomputed=nothing,
        )

    def again(self, *, is_new_process: bool) -> Self:
        """The same record, for another replay."""
        nothing, end_step = np.full(len(self.steps), np.nan), int(self.steps[-1]) + 1
        return replace(self, is_new_process=is_new_process, recomputed=nothing, end_step=end_step)

    def ending_at(self, step: int) -> Self:
        """Without the rows from `step` on: there something else changes."""
        return replace(self, end_step=min(self.end_step, step))

    def is_over_after(self, step: int) -> bool:
        """Whether no row after `step` is compared."""
        return bool(step + 1 >= self.end_step)

    def with_row(self, rows: Rows, k: int) -> Self:
        """After row k was computed again. It ends before another batch, and after another learning rate."""
        step = int(rows.steps[k])
        row = int(np.searchsorted(self.steps, step))
        if step >= self.end_step or self.steps[row] != step:
            return self
        if _value(rows, "batch_index", k) != self.batches[row]:
            return self.ending_at(step)
        recomputed, loss = self.recomputed.copy(), _value(rows, "loss", k)
        if "loss" in rows.metrics and rows.present["loss"][k]:
            recomputed[row] = loss if np.isfinite(loss) else np.inf
        rate, known = _value(rows, "lr", k), self.learning_rates[row]
        is_changed = np.isfinite(rate) and np.isfinite(known) and abs(rate - known) > 1e-6 * abs(known)
        return replace(self, recomputed=recomputed, end_step=step + 1 if is_changed else self.end_step)

    def differences(self) -> Floats:
        """float64[MAX_ROWS]: of each row, NaN where there is none."""
        padded = np.full(MAX_ROWS, np.nan)
        padded[: len(self.steps)] = np.abs(self.recomputed - self.recorded)
        return padded

    def to_dict(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in NUMBERS} | {"steps": self.steps.tolist()}
        return numbers | {name: pack(getattr(self, name)) for name in COLUMNS}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what is no comparison."""
        steps = np.array(state["steps"], dtype=np.int64)
        columns: dict[str, Any] = {name: unpack(state[name]) for name in COLUMNS}
        if {len(column) for column in columns.values()} != {len(steps)} or not 0 < len(steps) <= MAX_ROWS:
            raise ValueError("the columns of a comparison have different lengths")
        numbers: dict[str, Any] = {name: state[name] for name in NUMBERS}
        return cls(steps=steps, **columns, **numbers)


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """The rows of one comparison that were computed again: columns of length N, N > 0."""

    restored_step: int
    noise: float
    num_replays: int
    """Earlier replays that the tolerances come from."""
    is_new_process: bool
    """Whether another process has computed the steps again, maybe on other hardware."""
    steps: Ints
    recorded: Floats
    recomputed: Floats
    tolerances: Floats

    def is_generous(self) -> bool:
        """Whether the tolerances grow from row to row, because too little has been measured."""
        return self.is_new_process or not self.num_replays

    def differences(self) -> Floats:
        """Signed: positive where the loss is higher than recorded."""
        return self.recomputed - self.recorded

    def beyond(self) -> Bools:
        """Which rows differ by more than is tolerated."""
        return np.abs(self.differences()) > self.tolerances

    def is_mismatch(self) -> bool:
        return bool(np.count_nonzero(self.beyond()) >= MIN_DIFFERENT)

    def scores(self) -> Floats:
        """Each row's difference in tolerances."""
        return np.minimum(np.abs(self.differences()) / self.tolerances, MAX_SCORE)

    def score(self) -> float:
        """Above 1 in a mismatch alone: the difference that MIN_DIFFERENT rows exceed, in tolerances."""
        return float(np.sort(self.scores())[-MIN_DIFFERENT])


@dataclass(slots=True)
class RecomputedSteps:
    """The comparison under way, and what earlier ones have shown."""

    pending: Comparison | None = None
    disputed: Comparison | None = None
    """The last mismatch, until the run goes back before it or a person accepts it."""
    scatter: list[Floats] = field(default_factory=list)
    """The differences of earlier replays, each as `Comparison.differences`, oldest first."""

    def begin(self, comparison: Comparison | None, restored_step: int, *, is_new_process: bool = True) -> None:
        """A replay from `restored_step` begins. A mismatch is no reference: the same step keeps its first record."""
        disputed = self.disputed
        if disputed is not None and disputed.restored_step == restored_step:
            comparison = disputed.again(is_new_process=is_new_process)
        self.go_back(restored_step)
        self.pending = comparison

    def go_back(self, restored_step: int) -> None:
        """Steps from `restored_step` on are computed again, and there is a reason why they cannot be compared."""
        self.pending = None
        if self.disputed is not None and restored_step <= self.disputed.restored_step:
            self.disputed = None

    def end_at(self, step: int) -> None:
        """Rows from `step` on are not compared: the loop announced a change there."""
        if self.pending is not None:
            self.pending = self.pending.ending_at(step)

    def observe(self, rows: Rows) -> Verdict | None:
        """Take in the next rows of the replay; the verdict once no further row is compared, if any was."""
        for k in range(len(rows)):
            if self.pending is None:
                return None
            self.pending = self.pending.with_row(rows, k)
            if self.pending.is_over_after(int(rows.steps[k])):
                return self.conclude()
        return None

    def conclude(self) -> Verdict | None:
        """End the comparison under way: its verdict; None where fewer than MIN_DIFFERENT rows were compared."""
        comparison, self.pending = self.pending, None
        if comparison is None:
            return None
        compared = ~np.isnan(comparison.recomputed)
        if np.count_nonzero(compared) < MIN_DIFFERENT:
            return None
        tolerances = self._tolerances(comparison)
        verdict = Verdict(
            comparison.restored_step,
            comparison.noise,
            len(self.scatter),
            comparison.is_new_process,
            comparison.steps[compared],
            comparison.recorded[compared],
            comparison.recomputed[compared],
            tolerances[compared],
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

    def to_dict(self) -> dict[str, Any]:
        comparisons = {"pending": self.pending, "disputed": self.disputed}
        return {name: None if each is None else each.to_dict() for name, each in comparisons.items()} | {
            "scatter": [pack(each) for each in self.scatter]
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """What of the state can be read; the rest is as in a new run."""
        scatter = [restore(unpack, each) for each in restore(list, state.get("scatter")) or []]
        return cls(
            restore(Comparison.from_dict, state.get("pending")),
            restore(Comparison.from_dict, state.get("disputed")),
            [each for each in scatter if each is not None and len(each) == MAX_ROWS],
        )


def _value(rows: Rows, name: str, k: int) -> float:
    return float(rows.metrics[name][k]) if name in rows.metrics else np.nan
