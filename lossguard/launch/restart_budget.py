"""How often a command that dies by itself is started again, and after which pause. Pure: times are given."""

from dataclasses import dataclass, field

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
