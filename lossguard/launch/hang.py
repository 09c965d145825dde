"""Whether a command hangs: no step for several times the longest of its recent steps. Pure: times are given."""

from collections import deque
from dataclasses import dataclass, field

MIN_STEPS = 20
"""Steps after which it is known what is usual; before, nothing is a hang (a compilation, the first evaluation)."""
NUM_RECENT = 500
FACTOR = 5.0
"""Times the longest recent step, evaluations and checkpoints included."""
MIN_SECONDS = 60.0
"""A shorter pause is no hang."""


@dataclass(slots=True)
class HangDetector:
    """What the steps of one child have taken."""

    factor: float = FACTOR
    min_seconds: float = MIN_SECONDS
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_RECENT))
    _num_steps: int = 0
    _step: int | None = None
    _at: float = 0.0

    def begin(self) -> None:
        """Another child was started: its start-up is no step."""
        self._step = None

    def observe(self, step: int, now: float) -> None:
        """The newest step at `now`, in seconds of a monotonic clock."""
        if step == self._step:
            return
        if self._step is not None:
            self._recent.append(now - self._at)  # of several steps, if they are shorter than the pause of who looks
            self._num_steps += max(1, step - self._step)
        self._step, self._at = step, now

    def limit(self) -> float | None:
        """Seconds without a step that are a hang; None: not known yet."""
        if self._num_steps < MIN_STEPS or not self._recent:
            return None
        return max(self.min_seconds, self.factor * max(self._recent))

    def silent_for(self, now: float) -> float | None:
        """Seconds since the newest step, if that is a hang; None otherwise."""
        limit = self.limit()
        if limit is None or self._step is None or now - self._at < limit:
            return None
        return now - self._at
