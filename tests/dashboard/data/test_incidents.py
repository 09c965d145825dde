"""The timeline of an incident, and errors of the hardware beside it."""

import pytest

from dashboard.data.incidents import errors_before, timeline
from db.models import Incident, Intervention, Order
from db.records.hardware import HardwareSample


def incident(**values: object) -> Incident:
    defaults = {
        "number": 1, "signal": "loss", "state": "open", "onset_step": 8, "detected_step": 10, "score": 3.0,
        "details": {"peak_value": 7.5}, "changed_at": 99.0,
    }  # fmt: skip
    return Incident(**(defaults | values))


def intervention(**values: object) -> Intervention:
    defaults = {"kind": "rollback", "state": "applied", "created_at": 1.0, "changed_at": 2.0, "details": {}}
    return Intervention(number=1, **(defaults | values))


def test_an_incident_is_listed_by_step_with_the_times_of_its_steps() -> None:
    entries = timeline(incident(peak_step=12, end_step=15), [], {}, {8: 0.8, 10: 1.0}.get)
    assert [(each.name, each.step, each.at) for each in entries] == [
        ("Precursor", 8, 0.8), ("Detected", 10, 1.0), ("Peak", 12, None), ("Last step out of band", 15, None),
    ]  # fmt: skip


@pytest.mark.parametrize(("end", "last"), [(None, "Detected"), (11, "Steps again"), (10, "Detected")])
def test_a_stall_is_found_by_the_clock_and_ends_with_a_step_or_with_the_run(end: int | None, last: str) -> None:
    stall = incident(kind="stall", onset_step=10, peak_step=10, end_step=end, opened_at=50.0)
    entries = timeline(stall, [], {}, {10: 1.0}.get)
    assert [(each.name, each.step, each.at) for each in entries[:2]] == [
        ("Last step", 10, 1.0),
        ("Detected", None, 50.0),
    ]
    assert entries[-1].name == last


@pytest.mark.parametrize(
    ("kind", "state", "names"),
    [
        ("rollback", "proposed", ["Rollback proposed"]),
        ("rollback", "rejected", ["Rollback proposed", "Rejected"]),
        ("hold", "ordered", ["Hold decided"]),
        ("rollback", "recurred", ["Rollback decided", "Recurred"]),
    ],
)
def test_an_intervention_is_listed_with_its_state(kind: str, state: str, names: list[str]) -> None:
    entries = timeline(incident(), [intervention(kind=kind, state=state)], {}, lambda _: None)
    assert [each.name for each in entries] == ["Precursor", "Detected", *names]


def test_an_applied_rollback_says_where_it_went_and_when_it_will_be_verified() -> None:
    rollback = intervention(rewind_to=5, skip_from=20, skip_to=30, details={"verify_at": 40})
    order = Order(state="applied", created_at=3.0, answered_at=4.0, rewound_to=4)
    *_, applied, due = timeline(incident(), [rollback], {1: order}, lambda _: None)
    assert (applied.name, applied.step, applied.note) == ("Order applied", 4, "rewound to step 4, 10 batches skipped")
    assert (due.name, due.step) == ("Verification due", 40)


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
