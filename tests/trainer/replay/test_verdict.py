"""The decision of a replay: which arms reproduced the incident, and its cause."""

from collections.abc import Sequence

import pytest

from lossguard import Cause
from trainer.replay.verdict import cause_of


@pytest.mark.parametrize(
    ("reproduced", "cause"),
    [  # the same state with the same batches, with others; an earlier state with the same, with others
        ((False, False, False, False), Cause.HARDWARE),
        ((True, False, True, False), Cause.DATA),
        ((True, True, False, False), Cause.STATE),
        ((True, False, False, False), Cause.DATA_X_STATE),
        ((True, True, True, False), Cause.UNDETERMINED),  # state and batches both
        ((True, True, True, True), Cause.UNDETERMINED),  # there is no normal run
        ((False, False, True, False), Cause.UNDETERMINED),  # an earlier state does it, the same does not
        ((True, False), Cause.UNDETERMINED),  # batches, or batches x state: nothing distinguishes them
        ((True, True), Cause.UNDETERMINED),  # the state, or the recipe
        ((False, False), Cause.HARDWARE),
    ],
)
def test_the_arms_show_a_cause(reproduced: Sequence[bool], cause: Cause) -> None:
    assert cause_of(reproduced) is cause
