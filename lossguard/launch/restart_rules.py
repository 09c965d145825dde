"""The rules of restarts: when a command hangs, and how often one that dies is started again. Pure: times are given."""

from collections import deque
from dataclasses import dataclass, field

# Hangs: no step for several times the longest of the recent steps.

MIN_STEPS = 20
"""Steps after which it is known what is usual; before, nothing is a hang (a compilation, the first evaluation)."""
NUM_RECENT = 500
FACTOR = 5.0
"""Times the longest recent step, evaluations and checkpoints included."""
MIN_SECONDS = 60.0
"""A shorter pause is no hang."""
MAX_LOOK_SECONDS = 5.0
"""A longer time between two looks of the launcher was a pause of the launcher, and of the command in its group too."""


@dataclass(slots=True)
class HangDetector:
    """The times of one child's steps."""

    min_seconds: float = MIN_SECONDS
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_RECENT))
    _num_steps: int = 0
    _before: int | None = None  # the newest step when the child was started
    _step: int | None = None  # of this child
    _at: float = 0.0
    _looked_at: float | None = None

    def look(self, now: float) -> None:
        """Called at each look, at `now` in seconds of a monotonic clock: a suspension in between is no hang."""
        if self._looked_at is not None and now - self._looked_at > MAX_LOOK_SECONDS:
            self._at += now - self._looked_at
        self._looked_at = now

    def begin(self, before: int | None) -> None:
        """Another child was started, when `before` was the newest step: its start-up is no step."""
        self._before, self._step = before, None

    def observe(self, step: int, now: float) -> None:
        """The newest step at `now`, in seconds of a monotonic clock."""
        if step == (self._before if self._step is None else self._step):
            return
        if self._step is not None:
            self._recent.append(now - self._at)  # of several steps, if they are shorter than the pause of who looks
            self._num_steps += max(1, step - self._step)
        self._step, self._at = step, now

    def limit(self) -> float | None:
        """Seconds without a step that are a hang; None: not known yet."""
        if self._num_steps < MIN_STEPS or not self._recent:
            return None
        return max(self.min_seconds, FACTOR * max(self._recent))

    def silent_for(self, now: float) -> float | None:
        """Seconds since the newest step, if that is a hang; None otherwise."""
        limit = self.limit()
        if limit is None or self._step is None or now - self._at < limit:
            return None
        return now - self._at


# Restarts of a command that dies by itself: their number, and the pause before each.

HOUR = 3600.0
MAX_BACKOFF = 300.0
"""Seconds."""
MAX_FRUITLESS = 4
"""Starts in a row without a new step that make a crash loop."""


@dataclass(slots=True)
class RestartBudget:
    """Restarts of one launch, other than those for an order."""

    per_hour: int
    first_pause: float
    """Seconds before the first restart; each further one without a new step waits twice as long."""
    _times: list[float] = field(default_factory=list)
    num_fruitless: int = 0
    """Starts in a row that ended without a new step."""

    def refusal(self, now: float, *, made_progress: bool) -> str | None:
        """The command has ended by itself at `now` (monotonic seconds): why it is not started again, or None."""
        self.num_fruitless = 0 if made_progress else self.num_fruitless + 1
        self._times = [time for time in self._times if time > now - HOUR]
        if self.num_fruitless >= MAX_FRUITLESS:
            return f"it ended {self.num_fruitless} times in a row without a new step"
        if len(self._times) >= self.per_hour:
            return f"it was started again {len(self._times)} times within an hour (--max-restarts)"
        self._times.append(now)
        return None

    def pause(self) -> float:
        """Seconds to wait before the restart."""
        return float(min(MAX_BACKOFF, self.first_pause * 2 ** max(0, self.num_fruitless - 1)))
