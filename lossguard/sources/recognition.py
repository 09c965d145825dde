"""Facts about the rows of a source, recognised from the rows, and a short table of the first ones for people.

**Smoothing.** The losses of a training step are a slow level plus noise that is new at each step. So neighbouring
differences of a raw loss have an autocorrelation of -1/2. Those of an exponential moving average (EMA) that keeps the
part a of its past have -(1 - a)/2, which is nearly 0. A loss that still falls fast looks smooth too, but its level
moves farther in 8 rows than noise does: by the variance ratio (Lo and MacKinlay 1988) of 8 rows to one, which is 1/8
for raw noise, below 1 for an EMA, and above 1 for a trend. Then nothing is decided yet. The part a itself is the
autocorrelation of the level around its trend, corrected for its bias in a short window.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from math import isfinite, log, sqrt
from statistics import fmean, median

from lossguard.sources.names import NameMap, canonical
from lossguard.vocabulary.source_facts import EVERY_STEP, MAX_STRIDE, SPARSE, Clock, SourceFacts

WINDOW = 512
"""Losses that are looked at together, at most."""
FIRST, EVERY = 256, 128
"""Losses before the first look for smoothing, and between two looks."""
LOOKS = 3
"""Looks in a row that must find a smoothed loss."""
REFINED_AT = 2048
"""Losses after which the weight of the past is estimated again, once, from all looks."""
RAW = -0.3
"""Autocorrelation of the differences: what is below is raw, whatever came before."""
SMOOTH = -0.2
"""Values above this one may be smoothed."""
MAX_RATIO = 1.3
"""Variance ratio above which the level moves too fast for a verdict."""
DEGREE = 3
"""Degree of the polynomial that is removed from a window's level: a falling loss is no straight line."""
STRIDE_ROWS = 16
"""Losses before a stride is recognised."""
SPARSE_ROWS = 4
"""Losses before a stride of SPARSE or more steps is recognised: 16 of them would take long."""
MIN_LEVEL = 0.05
"""Nats: from a level above it, a loss of exactly 0 is no loss."""
WEIGHTS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
"""Weights of the past to which an estimate is rounded."""
COUNTERS = {
    "consumed_samples": Clock.SAMPLES,
    "consumed_train_samples": Clock.SAMPLES,
    "samples": Clock.SAMPLES,
    "num_samples": Clock.SAMPLES,
    "samples_seen": Clock.SAMPLES,
    "epoch": Clock.EPOCHS,
    "train_epoch": Clock.EPOCHS,
}
"""Names, in canonical form, of what counts something other than optimizer steps."""


class Recognition:
    """Learns `facts` from one row after the other.

    What is known beforehand stays, except for the stride: the rows show it.
    """

    def __init__(self, known: SourceFacts = EVERY_STEP) -> None:
        self.facts = known
        self._known = known
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._num_losses = 0
        self._last_step: int | None = None
        self._strides: deque[int] = deque(maxlen=64)
        self._is_raw = False
        self._looks: list[float] = []  # weights of the past, of the latest looks that found a smoothed loss
        self._clock_rows: Counter[str] = Counter()
        self._num_rows = 0

    def know(self, facts: SourceFacts) -> bool:
        """Something is known only now, as from a configuration that came late. True: the facts changed."""
        before, self._known = self.facts, facts
        self.facts = replace(
            facts,
            stride=facts.stride if before.stride == 1 else before.stride,
            smoothing=facts.smoothing or before.smoothing,
            nan_filtered=facts.nan_filtered or before.nan_filtered,
            averaged=facts.averaged or before.averaged,
        )
        return self.facts != before

    def observe(self, step: int, loss: float | None, values: Mapping[str, float]) -> bool:
        """Take in a row: its step, its loss if it has one, and its values as in the source. True: the facts changed."""
        before = self.facts
        if self._num_rows < STRIDE_ROWS:
            self._observe_clock(step, values)
        if loss is not None:
            self._observe_loss(step, loss)
        return self.facts != before

    def _observe_clock(self, step: int, values: Mapping[str, float]) -> None:
        """The x axis is that of a counter that equals the step in every row."""
        self._num_rows += 1
        equal = [name for name, value in values.items() if value == step and canonical(name) in COUNTERS]
        self._clock_rows.update(equal)
        if self._num_rows == STRIDE_ROWS and self.facts.clock is Clock.STEPS:
            for name, num_rows in self._clock_rows.items():
                if num_rows == STRIDE_ROWS:
                    self.facts = replace(self.facts, clock=COUNTERS[canonical(name)])

    def _observe_loss(self, step: int, loss: float) -> None:
        if loss == 0.0 and self._losses and self._losses[-1] >= MIN_LEVEL:
            self.facts = replace(self.facts, nan_filtered=True)
        if self._last_step is not None and 0 < step - self._last_step <= MAX_STRIDE:
            self._strides.append(step - self._last_step)
        self._last_step = step
        if not isfinite(loss) or loss == 0.0:
            return
        self._losses.append(loss)
        self._num_losses += 1
        may_count_steps = self._num_rows not in self._clock_rows.values()
        if self._num_losses == SPARSE_ROWS and min(self._strides, default=0) >= SPARSE and may_count_steps:
            self._find_stride()
        if self._num_losses % STRIDE_ROWS == 0:
            self._find_stride()
        if self._num_losses >= FIRST and self._num_losses % EVERY == 0 and not self._is_raw:
            self._find_smoothing()

    def _find_stride(self) -> None:
        if not self._strides:
            return
        stride, count = Counter(self._strides).most_common(1)[0]
        if count >= 0.8 * len(self._strides):
            self.facts = replace(self.facts, stride=stride)

    def _find_smoothing(self) -> None:
        if self._known.smoothing or (self.facts.smoothing and self._num_losses > REFINED_AT):
            return
        weight = smoothing_of(list(self._losses))
        if weight == 0.0:
            self._is_raw = True
            self.facts = replace(self.facts, smoothing=0.0)
            return
        if weight is None:
            if not self.facts.smoothing:
                self._looks.clear()
            return
        self._looks.append(weight)
        is_first = not self.facts.smoothing and len(self._looks) == LOOKS
        if is_first or self._num_losses == REFINED_AT:
            present = fmean(log(1.0 - each) for each in self._looks)  # by the number of rows that the weights average
            nearest = min(WEIGHTS, key=lambda each: abs(present - log(1.0 - each)))
            self.facts = replace(self.facts, smoothing=nearest)


def smoothing_of(losses: list[float]) -> float | None:
    """The weight of the past in a window of finite losses: 0 for a raw loss, None where that cannot be said."""
    path = _without_leaps(losses)
    if path is None:
        return None
    level = _without_trend(path)
    steps = [after - before for before, after in pairwise(level)]
    power = _product(steps, steps)
    neighbours = _product(steps, steps[1:]) / power
    eights = [after - before for before, after in zip(level, level[8:], strict=False)]
    ratio = (_product(eights, eights) / len(eights)) / (8 * power / len(steps))
    if neighbours < RAW:
        return 0.0
    if neighbours < SMOOTH or ratio > MAX_RATIO:
        return None
    weight = _product(level, level[1:]) / _product(level, level)
    weight += (1 + DEGREE + (3 + DEGREE) * weight) / len(level)  # it is estimated too low, the more so without a trend
    return min(max(weight, WEIGHTS[0]), WEIGHTS[-1])


def _without_leaps(losses: list[float]) -> list[float] | None:
    """The losses less their median change per row, with each change at most 4 robust deviations: no spike decides."""
    steps = [after - before for before, after in pairwise(losses)]
    usual = median(steps)
    limit = 4.0 * 1.4826 * median(abs(step - usual) for step in steps)
    if not limit > 0.0:
        return None
    return list(accumulate((min(max(step - usual, -limit), limit) for step in steps), initial=0.0))


def _without_trend(path: list[float]) -> list[float]:
    """The residuals of the polynomial of least squares of DEGREE."""
    size = len(path)
    basis: list[list[float]] = []
    for degree in range(DEGREE + 1):
        power = _without([(2.0 * k / size - 1.0) ** degree for k in range(size)], basis)
        length = sqrt(_product(power, power))
        basis.append([each / length for each in power])
    return _without(path, basis)


def _without(values: list[float], basis: list[list[float]]) -> list[float]:
    """Return the part that is orthogonal to the unit vectors `basis`, which are orthogonal to each other."""
    for vector in basis:
        part = _product(values, vector)
        values = [value - part * each for value, each in zip(values, vector, strict=True)]
    return values


def _product(values: list[float], others: list[float]) -> float:
    """Return the sum of the products of two lists, as far as both go."""
    return sum(one * other for one, other in zip(values, others, strict=False))


# The preview: the first rows, and what they were mapped to.

PREVIEW_ROWS = 100
"""Rows after which the preview is complete."""
MAX_OWN_NAMES = 12
"""Names without a metric that the table lists; it counts the others."""


@dataclass(slots=True)
class Preview:
    """The first PREVIEW_ROWS rows of a source."""

    names: NameMap
    facts: SourceFacts = EVERY_STEP
    """Facts about how the rows are made, as far as they are known."""
    num_rows: int = 0
    first_step: int | None = None
    last_step: int | None = None
    _columns: dict[str, tuple[float, float, int]] = field(default_factory=dict)  # first value, last one, number

    @property
    def is_complete(self) -> bool:
        return self.num_rows >= PREVIEW_ROWS

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take in the next row, under the names of the source."""
        self.num_rows += 1
        self.first_step = step if self.first_step is None else self.first_step
        self.last_step = step
        for name, value in values.items():
            first, _, num_values = self._columns.get(name, (value, value, 0))
            self._columns[name] = first, value, num_values + 1

    def text(self) -> str:
        """The table, without colours: name in the source, metric, first and last value, rows. Ends with a newline."""
        if not self._columns:
            return "no rows yet\n"
        lines = [f"{self._rows()}, steps {self.first_step} to {self.last_step}:"]
        cells = [("name in the source", "recorded as", "first", "last", "rows")]
        mapped = {name: self.names.target_of(name) for name in self._columns}
        known = [name for name, target in mapped.items() if self.names.chosen.get(target) == name]
        own = [name for name in mapped if name not in known]
        for name in [*known, *own[:MAX_OWN_NAMES]]:
            first, last, num_values = self._columns[name]
            target = mapped[name] if mapped[name] != name or name in known else self._own(name)
            cells.append((name, target, f"{first:.6g}", f"{last:.6g}", str(num_values)))
        widths = [max(len(row[k]) for row in cells) for k in range(5)]
        for name, target, *numbers in cells:
            right = "  ".join(cell.rjust(width) for cell, width in zip(numbers, widths[2:], strict=True))
            lines.append(f"  {name.ljust(widths[0])}  {target.ljust(widths[1])}  {right}")
        if len(own) > MAX_OWN_NAMES:
            lines.append(f"  and {len(own) - MAX_OWN_NAMES} more under their own names")
        if "loss" not in self.names.chosen:
            lines.append(
                "No name is known to be the loss, so nothing is detected on it: --map loss=NAME says which one is."
            )
        return "\n".join([*lines, *self.facts.describe(), *self.missing()]) + "\n"

    def _rows(self) -> str:
        return f"the first {self.num_rows} rows" if self.num_rows > 1 else "the first row"

    def _own(self, name: str) -> str:
        """Return what the table says of a name that is no metric here."""
        metric = self.names.metric_of(name)
        other = None if metric is None or self.names.is_released(metric) else self.names.chosen[metric]
        return f"(its own name: {metric} is {other})" if other else "(its own name)"

    def missing(self) -> list[str]:
        """A sentence for each name of --map that has not come."""
        return [
            f"--map {metric}={self.names.overrides[metric]}: no such name in {self._rows()}; "
            f"names there: {', '.join(list(self._columns)[:20])}."
            for metric in self.names.missing()
        ]
