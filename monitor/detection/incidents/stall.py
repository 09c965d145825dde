"""The incident of a run without new steps: what it says. Only a component with a clock can see that there is one."""

from dataclasses import dataclass
from enum import StrEnum

from lossguard.vocabulary.states import IncidentKind, IncidentState, Outcome
from monitor.detection.effects import Incident


class Sign(StrEnum):
    """Sign of life of a run without new steps."""

    HEARTBEATS = "heartbeats"  # the process lives
    NOTHING = "nothing"
    UNKNOWN = "unknown"  # its client sends no heartbeats


MEANING = {
    Sign.HEARTBEATS: "Heartbeats still arrive, so the process lives and the network works: the loop hangs or waits, "
    "perhaps in a collective operation, on its data or on a disk.",
    Sign.NOTHING: "No reports arrive at all, not even heartbeats: the process or its machine is dead, or the network "
    "between it and the collector is.",
    Sign.UNKNOWN: "The client of this run sends no heartbeats, so it is not known whether its process lives.",
}


@dataclass(frozen=True, slots=True)
class Silence:
    """A run without new steps."""

    seconds: float
    """Since the newest step, or since the run was registered again."""
    limit: float
    """Seconds that are a stall, by the run's own tail."""
    sign: Sign


def stall(number: int, step: int, silence: Silence) -> Incident:
    """An open incident: it needs a person. `step`: the newest one, -1 before the first."""
    since = f"since step {step}" if step >= 0 else "before the first step"
    return Incident(
        number=number,
        kind=IncidentKind.STALL,
        state=IncidentState.OPEN,
        signal="step_seconds",
        onset_step=max(step, 0),
        detected_step=max(step, 0),
        peak_step=max(step, 0),
        peak_value=silence.seconds,
        end_step=None,
        score=round(silence.seconds / silence.limit, 3),
        expected=silence.limit,
        scale=0.0,
        outcome=Outcome.ONGOING,
        reasons=[
            f"No step has arrived for {duration(silence.seconds)}, {since}. By the longest times between two rows of "
            f"this run, up to {duration(silence.limit)} would be usual.",
            MEANING[silence.sign],
        ],
    )


def duration(seconds: float) -> str:
    """Return the duration in words."""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min" if seconds < 7200 else _hours(seconds)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"
