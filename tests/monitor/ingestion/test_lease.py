"""Of several processes with one run id, one at a time gets the orders of the run and answers them."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.models import Run
from lossguard.spool.writer import WRITER_HEADER, Writer
from lossguard.vocabulary.protocol import API
from monitor.ingestion import lease
from monitor.ingestion.lease import Claim
from tests.monitor.client import NOW, Clock, Pair, TestClient, Trainer, writer
from tests.monitor.scenarios import CHECKPOINTS, noise, trained

SECONDS = 20.0


def claim(by: Writer | None, at: float) -> Claim:
    return Claim(writer=by, now=at, seconds=SECONDS)


def test_another_folder_gets_the_lease_only_once_it_has_run_out() -> None:
    run = Run(id="r")
    assert lease.take(run, claim(writer("a"), 0.0))
    assert not lease.take(run, claim(writer("b"), 19.9))
    assert lease.take(run, claim(writer("a"), 19.9))
    assert not lease.take(run, claim(writer("b"), 39.8))
    assert lease.take(run, claim(writer("b"), 40.0))
    assert not lease.take(run, claim(writer("a"), 41.0))


def test_a_restart_in_the_same_folder_takes_over_at_once_and_the_older_process_never_comes_back() -> None:
    run = Run(id="r")
    assert lease.take(run, claim(writer("a", 1), 0.0))
    assert lease.take(run, claim(writer("a", 2), 1.0))
    assert [lease.take(run, claim(writer("a", 1), at)) for at in (2.0, 1000.0)] == [False, False]


def test_a_process_that_does_not_say_who_it_is_acts_as_long_as_nobody_holds_the_lease() -> None:
    run = Run(id="r")
    assert lease.take(run, claim(None, 0.0))
    assert lease.take(run, claim(writer("a"), 1.0))
    assert not lease.take(run, claim(None, 2.0))
    assert lease.take(run, claim(None, 30.0))


def test_a_process_whose_lease_a_person_has_ended_does_not_get_it_back_but_its_restart_does() -> None:
    run = Run(id="r")
    assert lease.take(run, claim(writer("a", 1), 0.0))
    lease.end(run, now=1.0)
    lease.end(run, now=1.0)
    assert not lease.take(run, claim(writer("a", 1), 2.0))
    assert lease.take(run, claim(writer("a", 2), 2.0))
    lease.end(run, now=3.0)
    assert lease.take(run, claim(writer("b", 1), 3.0))


def test_a_process_that_has_ended_leaves_the_lease_to_the_next() -> None:
    run = Run(id="r")
    assert lease.take(run, claim(writer("a"), 0.0))
    lease.release(run, now=1.0)
    assert lease.take(run, claim(writer("b"), 1.0))


def test_a_clock_that_is_set_back_does_not_prolong_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted by the monotonic clock too, also by a collector that sees it for the first time."""
    passed = [0.0]
    monkeypatch.setattr(lease, "time", SimpleNamespace(monotonic=lambda: passed[0]))
    run = Run(id="r")
    assert lease.take(run, claim(writer("a"), 10_000.0))
    passed[0] = 15.0
    assert not lease.take(run, claim(writer("b"), 5000.0))
    passed[0] = 20.0
    assert lease.take(run, claim(writer("b"), 5005.0))
    unknown = Run(id="r", lease_writer="c" * 32, lease_session="1", lease_until=10_000.0)
    assert not lease.take(unknown, claim(writer("b"), 5005.0))
    passed[0] = 40.0
    assert lease.take(unknown, claim(writer("b"), 5005.0))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.floats(0.0, 15.0)), max_size=30))
def test_whoever_holds_the_lease_is_the_only_one_until_it_ends_or_a_newer_process_of_its_folder_comes(
    asks: list[tuple[str, int, float]],
) -> None:
    run, now = Run(id="r"), 0.0
    holder, until = None, -1.0
    for folder, session, pause in asks:
        now += pause
        by = writer(folder, session)
        may_act = lease.take(run, claim(by, now))
        if holder is not None and now < until and by != holder:
            assert may_act == (by.id == holder.id and by.session > holder.session)
        if may_act:
            assert lease.seconds_left(run, now) >= lease.RENEW_BELOW * SECONDS
            holder, until = by, now + lease.seconds_left(run, now)


def roll_back(http: TestClient, step: int) -> None:
    assert http.post(f"{API}/runs/r1/rollback", json={"rewind_to": step}).status_code == 200


def test_two_folders_at_two_collectors_get_one_order_and_one_segment_names_it(pair_on_both: Pair, clock: Clock) -> None:
    first, segment = trained(pair_on_both[0], writer=writer("a"))
    second = Trainer(pair_on_both[1], writer=writer("b"))
    copy = second.open("b", 300, "resume")
    roll_back(pair_on_both[0], 100)
    assert second.report(copy, [300], {"loss": [3.0]}) == {
        "accepted": 1,
        "duplicates": 0,
        "orders": [],
        "lease": 0.0,
        "writer": "1@host-a",
    }
    answer = first.report(segment, [300], {"loss": [3.0]})
    (order,) = answer["orders"]
    assert (answer["accepted"], answer["lease"]) == (1, SECONDS)
    body = {"key": "c", "fork_step": 100, "reason": "rollback", "order": order["id"], "opened_at": NOW + 1}
    path = f"{API}/runs/r1/segments"
    refused = pair_on_both[1].post(path, json=body | {"key": "forged"}, headers=second.headers)
    assert (refused.status_code, "process 1@host-a writes the run 'r1'" in refused.json()["detail"]) == (409, True)
    said = {"state": "applied", "key": order["key"], "rewound_to": 100}
    assert pair_on_both[1].put(f"{API}/orders/{order['id']}", json=said, headers=second.headers).status_code == 409
    assert pair_on_both[0].post(path, json=body, headers=first.headers).status_code == 200
    assert [one["order_id"] for one in first.get()["segments"]] == [None, None, order["id"]]


def test_the_other_folder_takes_over_when_the_lease_has_run_out(pair_on_both: Pair, clock: Clock) -> None:
    first, segment = trained(pair_on_both[0], writer=writer("a"))
    second = Trainer(pair_on_both[1], writer=writer("b"))
    copy = second.open("b", 300, "resume")
    clock.now += SECONDS
    assert second.report(copy, [300], {"loss": [3.0]})["lease"] == SECONDS
    late = first.report(segment, [300, 301], {"loss": [3.0, 3.0]}, restorable_steps=[])
    assert (late["accepted"], late["orders"], late["lease"]) == (2, [], 0.0), "its steps are stored all the same"
    assert first.get()["restorable_steps"] == CHECKPOINTS


TAKES_OVER = {
    "a segment that lay beside the line": lambda other: other.report(other.open("b", 290, "resume"), [], {}),
    "steps for the segment of the other": lambda other: other.report(0, [301, 302], {"loss": [3.0, 3.0]}),
    "a segment of its own": lambda other: (
        other.report(0, [], {}),
        other.report(other.open("b", 290, "resume"), [], {}),
    )[1],
    "a segment whose first step is not known": lambda other: other.report(
        other.open("b", None, "resume"), [300], {"loss": [3.0]}
    ),
}


@pytest.mark.parametrize("way", TAKES_OVER)
@pytest.mark.parametrize("kind", ["rollback", "proposal", "person", "hold"])
def test_an_order_about_the_steps_of_a_process_is_carried_out_by_no_other(
    pair: Pair, clock: Clock, way: str, kind: str
) -> None:
    first, segment = trained(pair[0], writer=writer("a"))
    if kind == "person":
        roll_back(pair[0], 100)
    elif kind == "hold":
        assert pair[0].post(f"{API}/runs/r1/hold", json={}).status_code == 200
    else:
        mode = "approve" if kind == "proposal" else "auto"
        assert pair[0].put(f"{API}/runs/r1/policy", json={"mode": mode}).status_code == 200
        first.report(segment, [300], {"loss": [math.nan]})
    clock.now += SECONDS
    other = Trainer(pair[1], writer=writer("b"))
    assert other.report(segment, [], {})["orders"] == []
    answer = TAKES_OVER[way](other)
    assert (answer["orders"], answer["lease"] > 0) == ([], True)
    (intervention,) = other.get()["interventions"]
    assert intervention["state"] == "withdrawn"
    assert "1@host-b has taken over the run" in intervention["details"]["reasons"][-1]
    assert [one["state"] for one in other.get()["orders"]] == ([] if kind == "proposal" else ["withdrawn"])
    assert [one["state"] for one in other.get("/incidents")] == ([] if kind in ("person", "hold") else ["closed"])
    newest = other.get()["segments"][-1]["number"]
    at = other.get()["newest_step"]["step"] + 1
    assert pair[0].put(f"{API}/runs/r1/policy", json={"mode": "auto"}).status_code == 200
    answer = other.report(newest, range(at, at + 2), {"loss": [math.nan] * 2}, restorable_steps=CHECKPOINTS)
    (order,) = answer["orders"]
    assert order["segment"] == other.get()["segments"][-1]["key"], "its own steps are judged"


def test_a_segment_of_another_process_names_no_order_about_the_steps_of_the_first(pair: Pair, clock: Clock) -> None:
    first, segment = trained(pair[0], writer=writer("a"))
    roll_back(pair[0], 100)
    (order,) = first.report(segment, [], {})["orders"]
    clock.now += SECONDS
    other = Trainer(pair[1], writer=writer("b"))
    body = {"key": "c", "fork_step": 100, "reason": "rollback", "order": order["id"], "opened_at": NOW + 1}
    refused = pair[1].post(f"{API}/runs/r1/segments", json=body, headers=other.headers)
    assert (refused.status_code, "steps of another process" in refused.json()["detail"]) == (409, True)


def test_a_restart_in_the_same_folder_still_gets_its_order(http: TestClient) -> None:
    first, _ = trained(http, writer=writer("a", 1))
    roll_back(http, 100)
    again = Trainer(http, writer=writer("a", 2))
    (order,) = again.report(again.open("b", 300, "resume"), [], {})["orders"]
    assert again.open("c", 100, "rollback", order["id"]) == 2
    assert [one["state"] for one in first.get()["orders"]] == ["open"]


def test_the_checkpoints_of_the_holder_count_while_the_newest_segment_is_that_of_another_process(
    pair: Pair, clock: Clock
) -> None:
    first, second = (Trainer(http, writer=writer(name)) for http, name in zip(pair, "ab", strict=True))
    segment = first.open("a")
    first.report(segment, range(10), {"loss": noise(1, 10)})
    copy = second.open("b", 0, "resume")
    second.report(copy, range(10), {"loss": noise(1, 10)})
    first.report(segment, range(10, 300), {"loss": noise(1, 290)}, restorable_steps=CHECKPOINTS)
    roll_back(pair[0], CHECKPOINTS[-1])
    (order,) = first.report(segment, [300], {"loss": [3.0]})["orders"]
    assert order["rewind_to"] == CHECKPOINTS[-1]


def test_neither_the_end_nor_the_start_of_another_process_changes_the_run(http: TestClient) -> None:
    first, _ = trained(http, writer=writer("a", 2))
    for other in (writer("a", 1), writer("b")):
        body = {"state": "failed", "at": NOW}
        headers = {WRITER_HEADER: other.to_header()}
        assert http.post(f"{API}/runs/r1/finish", json=body, headers=headers).status_code == 200
        Trainer(http, writer=other, capabilities=[])
    assert (first.get()["state"], first.get()["capabilities"]) == ("running", ["rollback"])
    assert http.post(f"{API}/runs/r1/finish", json=body, headers=first.headers).json()["state"] == "failed"
    assert Trainer(http, writer=writer("b")).get()["lease_process"] == "1@host-b"


def test_a_process_that_has_lost_the_run_does_not_lead_the_live_line_by_going_back(http: TestClient) -> None:
    first, _ = trained(http, writer=writer("a", 2))
    lost = Trainer(http, writer=writer("a", 1))
    lost.report(lost.open("late", 100, "rewind"), [100], {"loss": [9.0]})
    assert first.get()["newest_step"]["step"] == 299


def test_what_a_process_without_the_lease_reports_opens_no_incident_and_no_order(pair: Pair) -> None:
    """It may open a segment of its own, report into that of the holder, or open the holder's next one before it."""
    first, segment = trained(pair[0], writer=writer("a"))
    for by in (writer("b"), writer("a", 0), None):
        other = Trainer(pair[1], writer=by)
        name = "none" if by is None else by.process
        own = other.open(f"own {name}", 300, "resume", opened_at=NOW + 7200)
        for number in (own, segment):
            other.report(number, range(300, 340), {"loss": [math.nan] * 40}, restorable_steps=[0])
            declared = {"key": f"{name} {number}", "step": 300, "time": 1.0, "kind": "data_mix", "details": {}}
            other.report(number, [], {}, events=[declared])
        assert other.open("next", 0, "rewind") != segment
    assert (first.get("/incidents"), first.get()["orders"]) == ([], [])
    answer = first.report(segment, range(300, 320), {"loss": noise(2, 20)})
    assert (answer["accepted"], answer["duplicates"]) == (20, 0), "nobody has silenced its steps"
    (order,) = first.report(segment, [320], {"loss": [math.nan]})["orders"]
    assert order["segment"] == "a"
    number = first.open("next", order["rewind_to"], "rollback", order["id"])
    assert first.get()["segments"][number]["order_id"] == order["id"]
    first.report(number, [order["rewind_to"]], {"loss": [3.0]})
    assert first.get()["newest_step"]["step"] == order["rewind_to"]


def test_a_process_whose_segment_lay_beside_the_line_leads_it_once_it_takes_over(pair: Pair, clock: Clock) -> None:
    first, segment = trained(pair[0], writer=writer("a"))
    second = Trainer(pair[1], writer=writer("b"))
    copy = second.open("b", 200, "resume")
    second.report(copy, range(200, 250), {"loss": [*noise(3, 49), math.nan]})
    assert first.get()["newest_step"]["step"] == 299
    clock.now += SECONDS
    second.report(copy, range(250, 260), {"loss": noise(4, 10)})
    assert second.get()["newest_step"]["step"] == 259
    assert second.get("/incidents") == []
    first.report(segment, range(300, 320), {"loss": [math.nan] * 20})
    assert second.get("/incidents") == []
    second.report(copy, [260, 261], {"loss": [math.nan] * 2})
    assert [(one["kind"], one["segment"]) for one in second.get("/incidents")] == [("nonfinite", copy)]


def test_a_process_that_takes_over_before_the_holder_had_a_segment_leads_the_line(pair: Pair, clock: Clock) -> None:
    """The holder dies while it loads its model."""
    Trainer(pair[0], writer=writer("a"))
    second = Trainer(pair[1], writer=writer("b"))
    copy = second.open("b", 0, "start")
    second.report(copy, range(50), {"loss": noise(3, 50)}, restorable_steps=[0])
    clock.now += SECONDS
    second.report(copy, range(50, 100), {"loss": noise(4, 50)}, restorable_steps=[0, 50])
    assert second.get()["newest_step"]["step"] == 99
    (order,) = second.report(copy, [100], {"loss": [math.nan]})["orders"]
    assert order["kind"] == "rollback"


def test_a_process_asks_for_the_lease_before_it_resumes_and_an_operator_can_end_it(http: TestClient) -> None:
    path = f"{API}/runs/r1/lease"
    ask: dict[str, Any] = {"headers": {WRITER_HEADER: writer("b").to_header()}}
    assert http.post(path, **ask).status_code == 404
    trained(http, writer=writer("a"))
    refused = http.post(path, **ask)
    assert refused.status_code == 409
    assert "its lease ends in 20 s" in refused.json()["detail"]
    assert http.delete(path).status_code == 204
    assert http.post(path, **ask).json() == {"lease": SECONDS}
    assert [line["action"] for line in http.get(f"{API}/audit?run=r1").json()] == ["end lease"]


def test_no_answer_tells_the_id_of_a_folder_or_the_key_of_an_order(http: TestClient) -> None:
    """With them, a client could act for the trainer."""
    first, segment = trained(http, writer=writer("a"))
    roll_back(http, 100)
    (order,) = first.report(segment, [], {})["orders"]
    shown = http.get(f"{API}/runs/r1").text + http.get(f"{API}/runs").text + http.get(f"{API}/audit").text
    assert "a" * 32 not in shown
    assert order["key"] not in shown


def test_a_header_that_names_no_process_is_refused(http: TestClient) -> None:
    answer = http.post(f"{API}/runs/r1/lease", headers={WRITER_HEADER: "me"})
    assert (answer.status_code, answer.json()["where"]) == (422, ["header", "lossguard-writer"])
