import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lossguard
from lossguard.delivery.spool_delivery import MAX_STEPS_PER_REPORT, Delivery, report
from lossguard.spool.lines import to_line
from lossguard.spool.set_aside import SetAside
from lossguard.spool.spool import spools_in
from lossguard.spool.spool_reader import SpoolLine
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.protocol import decode_number
from lossguard.vocabulary.states import Refusal, SegmentReason, Tier
from lossguard.vocabulary.wire import RestorableTier
from tests.lossguard.collectors import Answer, FakeCollector
from tests.lossguard.delivery.runs import online, with_heartbeat
from tests.lossguard.scripted import rollback
from tests.waiting import eventually, pause

values = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-(2**53), 2**53))
metrics = st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=5)


@pytest.mark.slow
@given(st.lists(metrics, min_size=1, max_size=6))
def test_metrics_come_through_spool_and_report_unchanged(rows: list[dict[str, float]]) -> None:
    lines = [to_line({"step": step, "time": 1.0, "metrics": row}) for step, row in enumerate(rows)]
    body = json.loads(
        json.dumps(report("s", 0, [SpoolLine(0, line, json.loads(line)) for line in lines]), allow_nan=False)
    )
    assert body["steps"] == list(range(len(rows)))
    for step, row in enumerate(rows):
        back = {name: decode_number(column[step]) for name, column in body["metrics"].items()}
        assert set(back) >= set(row)
        for name, value in back.items():
            expected = row.get(name)
            assert value == expected or (value != value and expected != expected)


def test_steps_arrive_in_columns_with_their_segment_and_events_and_restorable_steps_beside_them(
    collector: FakeCollector, tmp_path: Path
) -> None:
    memory = RestorableTier(tier=Tier.MEMORY, steps=(60,), load_seconds=0.25)
    with online(collector, tmp_path) as run:
        run.log(0, loss=1.0, lr=0.1)
        run.log(1, loss=math.nan)
        run.declare("data_mix", name="code")
        run.set_restorable([0, 50, 60], [memory, RestorableTier(tier=Tier.DISK, steps=(0, 50))])
        run.log(1, loss=3.0)  # the loop goes back: a segment of its own
    assert collector.rows == {(0, 0): {"loss": 1.0, "lr": 0.1}, (0, 1): {"loss": "NaN"}, (1, 1): {"loss": 3.0}}
    assert [(event["kind"], event["step"]) for event in collector.events.values()] == [("data_mix", 2)]
    assert collector.finished == ["finished"]
    assert [segment["key"][-2:] for segment in collector.segments] == ["-0", "-1"]
    assert collector.restorable == [0, 50, 60]
    assert collector.tiers == [
        {"tier": "memory", "steps": [60], "load_seconds": 0.25},
        {"tier": "disk", "steps": [0, 50]},
    ]


@pytest.mark.slow
def test_every_report_says_how_much_waits_behind_it(collector: FakeCollector, tmp_path: Path) -> None:
    collector.open.clear()  # until all steps are in the queue
    with online(collector, tmp_path) as run:
        for step in range(2 * MAX_STEPS_PER_REPORT):
            run.log(step, loss=1.0)
        collector.open.set()
    assert max(collector.spool_bytes) >= MAX_STEPS_PER_REPORT * len('{"step":0,"time":0,"metrics":{"loss":1.0}}')
    assert collector.spool_bytes[-1] < 200, "only the line that ends the run"


def test_a_withdrawn_order_leaves_the_inbox_and_an_unknown_kind_is_no_order(
    collector: FakeCollector, tmp_path: Path
) -> None:
    with with_heartbeat(collector, tmp_path, 0.05) as run:
        run.log(0, loss=1.0)
        assert eventually(lambda: bool(collector.rows))
        collector.order(id=7, kind="hold")  # an idle run gets it by heartbeat
        collector.order(id=8, kind="dance")
        assert eventually(lambda: [order.id for order in run.inbox.orders] == [7])
        collector.orders.clear()
        assert eventually(lambda: not run.inbox.orders)
        assert run.take_order() is None


def test_an_answer_lost_on_the_way_makes_no_duplicates(collector: FakeCollector, tmp_path: Path) -> None:
    """The collector took the report, but we never heard: it is sent again, with the same keys."""
    lost = iter([True])

    def lose_once(method: str, path: str, body: dict[str, Any]) -> Answer | None:
        if path.endswith("reports") and next(lost, False):
            collector._report(body)
            return 502, {}
        return None

    collector.fault = lose_once
    with online(collector, tmp_path) as run:
        run.declare("data_mix")
        run.log(0, loss=1.0)
    assert len(collector.events) == 1
    assert collector.losses(0) == {0: 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("status", [409, 422])
def test_rejected_lines_are_kept_and_found_in_few_requests_and_their_neighbours_arrive(
    collector: FakeCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    bad, problem = {3, *range(20, 40)}, {"detail": "step 3 is unlucky", "where": ["steps", 1]}
    collector.fault = lambda method, path, body: (status, problem) if bad & set(body.get("steps", ())) else None
    run = lossguard.init("project", run_id="r", mode="offline", directory=tmp_path)
    for step in range(60):
        run.log(step, loss=1.0)
    run.finish()
    online(collector, tmp_path).finish()
    assert set(collector.losses(0)) == set(range(60)) - bad
    assert run.directory is not None
    rejected = (run.directory / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in rejected] == sorted(bad)
    assert caplog.text.count("step 3 is unlucky (at steps.1)") == 1
    assert sum(path.endswith("reports") for _, path, _ in collector.requests) < 50


@pytest.mark.slow
def test_reports_that_a_proxy_finds_too_large_arrive_in_smaller_ones(collector: FakeCollector, tmp_path: Path) -> None:
    collector.refusal_type = "text/html"
    collector.fault = lambda method, path, body: (413, {}) if len(body.get("steps", ())) > 10 else None
    run = lossguard.init("project", run_id="r", mode="offline", directory=tmp_path)
    for step in range(60):
        run.log(step, loss=1.0)
    run.finish()
    online(collector, tmp_path).finish()
    assert set(collector.losses(0)) == set(range(60))
    assert run.directory is not None
    assert not (run.directory / "rejected.jsonl").exists()


def test_an_order_that_the_collector_forgot_does_not_stop_the_steps(collector: FakeCollector, tmp_path: Path) -> None:
    collector.fault = lambda method, path, body: (
        (404, {}) if method == "PUT" else (422, {}) if body.get("order") == 5 else None
    )
    with online(collector, tmp_path) as run:
        run.open_segment(3, SegmentReason.ROLLBACK, rollback(5), {"rewound_to": 3})
        run.log(3, loss=1.0)
    assert collector.losses(0) == {3: 1.0}


@pytest.mark.slow
def test_a_half_delivered_spool_is_resumed_in_its_segment_by_a_collector_that_fails_at_times(
    collector: FakeCollector, tmp_path: Path
) -> None:
    """The segment is asked for again first; when that fails, its steps must not go out without one."""
    collector.fault = lambda method, path, body: (503, {}) if 5 in body.get("steps", ()) else None
    run = online(collector, tmp_path)
    for step in range(5):
        run.log(step, loss=1.0)
    assert eventually(lambda: len(collector.rows) == 5)
    run.log(5, loss=2.0)
    run.finish(timeout=0.1)
    stumbles = iter([True, True])
    collector.fault = lambda method, path, body: (
        (503, {}) if path.endswith("segments") and next(stumbles, False) else None
    )
    online(collector, tmp_path).finish()
    assert collector.losses(0) == dict.fromkeys(range(5), 1.0) | {5: 2.0}
    assert len(collector.segments) == 1
    assert run.directory is not None
    assert not (run.directory / "rejected.jsonl").exists()


def test_an_answer_carries_the_key_of_its_order_and_what_was_done_or_why_not(
    collector: FakeCollector, tmp_path: Path
) -> None:
    order = rollback(3, key="c", rewind_to=0)
    with online(collector, tmp_path) as run:
        run.open_segment(0, SegmentReason.START)
        run.refuse(rollback(1, key="a"), "no checkpoint")
        run.refuse(rollback(2), "too deep", Refusal.LIMITS)
        run.open_segment(0, SegmentReason.ROLLBACK, order, order.applied_at(0) | {"compared": True, "lr_scale": 0.5})
    assert collector.answers == {
        1: {"state": "failed", "detail": "no checkpoint", "key": "a"},
        2: {"state": "failed", "detail": "too deep", "key": "k2", "refusal": "limits"},
        3: {"state": "applied", "key": "c", "rewound_to": 0, "compared": True},
    }
    assert all("key" in segment and "order_key" not in segment for segment in collector.segments)


@pytest.mark.slow
def test_a_run_that_the_collector_does_not_register_is_reported_once_and_stays_in_the_spool(
    collector: FakeCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collector.fault = lambda method, path, body: (422, {"detail": "no such host"}) if path.endswith("/runs") else None
    run = online(collector, tmp_path)
    run.log(0, loss=1.0)
    assert eventually(lambda: "refuses r (422 no such host)" in caplog.text)
    pause(0.3)  # several rounds of the sender, none of which asks again
    run.finish(timeout=1.0)
    paths = [path for _, path, _ in collector.requests]
    assert paths == ["/api/v1/runs/r/lease", "/api/v1/runs"], "the first asks whether another process writes the run"
    assert caplog.text.count("no such host") == 1
    assert "not everything was delivered" in caplog.text
    collector.fault = lambda method, path, body: None
    online(collector, tmp_path).finish()
    assert collector.losses(0) == {0: 1.0}


@pytest.mark.parametrize("line", [b"\x00\x00garbage\n", b"{}\n", b"5\n", b'{"run":7}\n'])
def test_a_damaged_spool_is_reported_once_and_kept_and_blocks_nothing(
    collector: FakeCollector, tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "project" / "r" / "0000.spool"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(line)
    for step in range(2):
        with online(collector, tmp_path) as run:
            run.log(step, loss=1.0)
    assert {step for _, step in collector.rows} == {0, 1}
    assert caplog.text.count("is damaged") == 1
    assert "undelivered" not in caplog.text
    assert damaged.read_bytes() == line


def test_every_request_says_which_process_sends_it_and_an_end_whose_end_it_is(
    collector: FakeCollector, tmp_path: Path
) -> None:
    """A collector must not end a run that a newer process continues."""
    with lossguard.init("project", run_id="r", mode="offline", directory=tmp_path) as run:
        run.log(0, loss=1.0)
    with online(collector, tmp_path) as run:
        run.log(1, loss=1.0)
    assert run.directory is not None
    first, second = (path.stem for path in spools_in(run.directory))
    for path in ("/runs", "/segments", "/reports"):
        assert set(collector.sessions(path)) == {second}
    assert collector.sessions("/finish") == [first, second]
    assert len({str(header).split()[0] for _, header in collector.writers}) == 1


def test_a_loop_that_takes_long_to_begin_keeps_its_run(collector: FakeCollector, tmp_path: Path) -> None:
    with with_heartbeat(collector, tmp_path, 0.05) as run:
        assert eventually(lambda: len(collector.sessions("/lease")) > 1)
        run.log(0, loss=1.0)
        assert eventually(lambda: bool(collector.rows))


def test_a_policy_is_registered_with_its_run_and_named_if_the_collector_cannot_read_it(
    collector: FakeCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    problem = {"id": "r", "policy_problem": "unknown policy settings: depht"}
    collector.fault = lambda _method, path, _body: (200, problem) if path.endswith("/runs") else None
    with lossguard.init("p", run_id="r", url=collector.url, directory=tmp_path, policy={"depht": 3}) as run:
        assert eventually(lambda: "which only observes: unknown policy settings: depht" in caplog.text)
        run.finish(timeout=0.0)  # this collector has no run to which anything could be delivered
    assert [body["policy"] for _, path, body in collector.requests if path.endswith("/runs")] == [{"depht": 3}]


@pytest.mark.slow
def test_a_notice_of_the_collector_is_logged_once_and_what_is_none_is_ignored(
    collector: FakeCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = {"key": "7", "text": "step 3 was computed again\nwith another learning rate\x1b[2J"}
    collector.notices = [said, {"key": 7, "text": "a number"}, "a text", None, said]
    with online(collector, tmp_path) as run:
        for step in range(3):
            run.log(step, loss=1.0)
            assert eventually(lambda step=step: step in collector.losses(0))  # type: ignore[misc]
        collector.notices = "nothing of the kind"
        run.log(3, loss=1.0)
    assert collector.losses(0).keys() == {0, 1, 2, 3}
    lines = [record.getMessage() for record in caplog.records if "computed again" in record.getMessage()]
    assert lines == ["step 3 was computed again with another learning rate [2J"]


def test_no_sample_follows_the_end_of_a_run_whose_lease_was_given_back(
    collector: FakeCollector, tmp_path: Path
) -> None:
    with lossguard.init("p", run_id="r", mode="offline", directory=tmp_path) as run:
        run.log(0, loss=1.0)
    (spool,) = tmp_path.rglob("*.spool")
    client = lossguard.Client(collector.url)
    delivery = Delivery(spool, client, lambda *answer: None, LogOnce(quiet=True), SetAside(tmp_path))
    sample = {"time": 1.0, "step": 0, "host": "h", "device": "gpu0", "values": {"power": 1.0}}
    while not collector.rows:
        assert delivery.advance()
    assert delivery.send_hardware([sample])
    while delivery.advance():
        pass
    assert collector.finished == ["finished"]
    assert not delivery.send_hardware([sample])
    delivery.close()
    client.close()
