"""The decision of a replay: which arms reproduced the incident, and its cause."""

import pytest

from lossguard import Cause
from trainer.replay.attribution import Reproduced, cause_of


@pytest.mark.parametrize(
    ("same_same", "same_other", "earlier_same", "earlier_other", "cause"),
    [
        (False, False, False, False, Cause.HARDWARE),
        (True, False, True, False, Cause.DATA),
        (True, True, False, False, Cause.STATE),
        (True, False, False, False, Cause.DATA_X_STATE),
        (True, True, True, False, Cause.UNDETERMINED),  # state and batches both
        (True, True, True, True, Cause.UNDETERMINED),  # there is no normal run
        (False, False, True, False, Cause.UNDETERMINED),  # an earlier state does it, the same does not
        (True, False, None, None, Cause.UNDETERMINED),  # batches, or batches x state: nothing distinguishes them
        (True, True, None, None, Cause.UNDETERMINED),  # the state, or the recipe
        (False, False, None, None, Cause.HARDWARE),
    ],
)
def test_the_four_arms_show_a_cause(
    same_same: bool, same_other: bool, earlier_same: bool | None, earlier_other: bool | None, cause: Cause
) -> None:
    assert cause_of(Reproduced(same_same, same_other, earlier_same, earlier_other)) is cause
