"""How far a run is and how long it will take. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from db.models import Run
from db.run_states import SILENT as SILENT
from db.run_states import is_silent as is_silent
from db.runs.overview import StepTime


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps done on the live line, and their total where the run reported one."""

    done: int
    total: int | None
    seconds_per_step: float | None
    """Mean over the newest steps of the live line; None before the second one, and where the clock went back."""

    @property
    def fraction(self) -> float | None:
        """0..1; None without a total."""
        return min(1.0, self.done / self.total) if self.total is not None and self.total > 0 else None

    @property
    def seconds_left(self) -> float | None:
        if self.total is None or self.seconds_per_step is None:
            return None
        return max(0, self.total - self.done) * self.seconds_per_step


def progress(run: Run, newest: Sequence[StepTime]) -> Progress:
    """Progress from the newest steps of the live line, in order."""
    if not newest:
        return Progress(0, run.total_steps, None)
    first, last = newest[0], newest[-1]
    passed = last.time - first.time
    pace = passed / (last.step - first.step) if last.step > first.step and passed > 0 else None
    return Progress(last.step + 1, run.total_steps, pace)
