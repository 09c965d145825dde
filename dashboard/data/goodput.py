"""Use of a run's time in words. Pure."""

from collections.abc import Mapping

from db.goodput.accounting import Breakdown, TimeCause

NAMES: Mapping[TimeCause, str] = {
    TimeCause.TRAINING: "Training",
    TimeCause.SPIKE: "Spikes",
    TimeCause.RESTART: "Restarts",
    TimeCause.REWIND: "Rewinds of the loop",
    TimeCause.CHECKPOINT: "Checkpoints",
    TimeCause.EVALUATION: "Evaluation",
    TimeCause.WAITING: "Waiting for people",
    TimeCause.HANG: "Hangs",
    TimeCause.STARTUP: "Start-up",
    TimeCause.OTHER: "Other",
}


def largest_loss(breakdown: Breakdown) -> TimeCause | None:
    """Return the cause that took the most time, besides training; None if nothing was lost."""
    lost = [cause for cause in breakdown.largest_first() if cause is not TimeCause.TRAINING]
    return lost[0] if lost else None


def lost_seconds(breakdown: Breakdown) -> float:
    """Return the seconds that did not train the model."""
    return max(0.0, breakdown.total - breakdown.seconds[TimeCause.TRAINING])
