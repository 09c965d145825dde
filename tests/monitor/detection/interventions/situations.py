"""A situation that a policy decides about."""

from typing import Any

from lossguard.vocabulary.states import IncidentKind
from monitor.detection.interventions.decision import Attempt, Situation
from monitor.detection.interventions.restorable import RestorableStep

CHECKPOINTS = list(range(0, 5001, 50))


def situation(**changes: Any) -> Situation:
    """A spike at step 5000 whose loss has not fallen in a span of patience. Of `restorable` steps, only the numbers
    need be given."""
    facts: dict[str, Any] = {
        "kind": IncidentKind.LOSS_SPIKE,
        "onset_step": 5000,
        "detected_step": 5001,
        "step": 5020,
        "non_finite": False,
        "loss_moved": True,
        "expected": 2.0,
        "scale": 0.02,
        "peak_excess": 1.5,
        "excess": 1.4,
        "check_excess": 1.5,
        "check_step": 5002,
        "rising_rows": 0,
        "falls": 9,
        "rises": 9,
        "attempts": (),
        "rollbacks_used": 0,
        "restorable": CHECKPOINTS,
        "can_roll_back": True,
    }
    facts |= changes
    known = [each if isinstance(each, RestorableStep) else RestorableStep(each) for each in facts["restorable"]]
    return Situation(**facts | {"restorable": known})


def attempt(number: int = 1, rewind_to: int = 4900, **changes: Any) -> Attempt:
    """A rollback that the trouble of step 5000 came back after."""
    facts: dict[str, Any] = {"onset_step": 5000, "skip_from": 4907, "skip_to": 5107}
    return Attempt(**{"number": number, "rewind_to": rewind_to} | facts | changes)


def batch_of(step: int) -> int:
    """Seven batches were skipped before."""
    return step + 7
