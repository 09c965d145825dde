"""From which arms of a replay reproduced the incident to its cause. Values in, values out.

An arm trains one state (a checkpoint) on one list of batches. The four arms combine {the same, an earlier} state with
{the same, other} batches.
"""

from dataclasses import dataclass

from lossguard import Cause


@dataclass(frozen=True, slots=True)
class Reproduced:
    """The arms that reproduced the incident; None for an arm that could not be run."""

    same_same: bool
    """True if the same state with the same batches reproduces it."""
    same_other: bool
    """True if the same state with other batches reproduces it."""
    earlier_same: bool | None
    """True if an earlier state with the same batches reproduces it."""
    earlier_other: bool | None
    """True if an earlier state with other batches, the normal run, reproduces it."""


CAUSES: dict[Reproduced, Cause] = {
    Reproduced(False, False, False, False): Cause.HARDWARE,
    Reproduced(False, False, None, None): Cause.HARDWARE,
    Reproduced(True, False, True, False): Cause.DATA,
    Reproduced(True, True, False, False): Cause.STATE,
    Reproduced(True, False, False, False): Cause.DATA_X_STATE,
}
"""All other combinations contradict themselves (both the batches and the state do it, ..) or lack the normal run."""


def cause_of(reproduced: Reproduced) -> Cause:
    """The cause that these arms show."""
    return CAUSES.get(reproduced, Cause.UNDETERMINED)
