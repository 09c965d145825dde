"""Errors of the hardware beside an incident."""

from dashboard.data.hardware import errors_before
from db.models import Incident
from db.records.hardware import HardwareSample


def error(step: int | None, *, time: float = 5.0, **readings: float) -> HardwareSample:
    return HardwareSample(
        time=time, step=step, host="node-1", device="gpu3", readings=readings or {"ecc_errors": 1.0}, num_errors=1
    )


INCIDENT = Incident(onset_step=400, detected_step=412, opened_at=10.0)


def test_an_error_is_dated_against_the_onset() -> None:
    assert errors_before(INCIDENT, [error(360)]) == ["ECC error of gpu3 on node-1, 40 steps before the onset."]
    late = error(401, xid_errors=1.0, xid_code=79.0)
    assert errors_before(INCIDENT, [late]) == ["XID error 79 of gpu3 on node-1, 1 step after the onset."]


def test_errors_long_before_after_the_detection_or_of_steps_computed_again_are_left_out() -> None:
    others = [error(None), error(-601), error(413), error(360, time=11.0)]
    assert errors_before(INCIDENT, others) == []
