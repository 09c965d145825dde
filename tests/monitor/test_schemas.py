"""Every limit of the protocol: a request at it is accepted, one beyond it is refused with its place and a remedy."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossguard.vocabulary.protocol import API, MAX_DEPTH, MAX_NODES, MAX_STEP
from tests.monitor.client import NOW, TestClient, Trainer, collector

RUN = {"id": "r2", "project": "p", "started_at": NOW}
SEGMENT = {"key": "b", "reason": "resume", "opened_at": NOW}
REPORT: dict[str, Any] = {"segment": 0, "steps": [0], "times": [NOW], "metrics": {"loss": [1.0]}}
EVENT = {"key": "e", "kind": "note", "time": NOW}
TIER = {"tier": "disk", "steps": []}
ANSWER = {"state": "failed", "key": "k"}
FINISH = {"state": "finished", "at": NOW}
JSON = {"content-type": "application/json"}


def text(length: int) -> str:
    return "x" * length


def texts(length: int) -> list[str]:
    return ["x"] * length


def versions(length: int) -> dict[str, str]:
    return {str(number): "1" for number in range(length)}


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def many(nodes: int) -> dict[str, Any]:
    """So many values, this one and its name for the list among them."""
    return {"a": [0] * (nodes - 3)}


def event(**change: Any) -> dict[str, Any]:
    return {"events": [EVENT | change]}


RUNS, SEGMENTS = ("POST", "/runs", RUN), ("POST", "/runs/r1/segments", SEGMENT)
REPORTS = ("POST", "/runs/r1/reports", REPORT)
Make = Callable[[int], Any]
LIMITS: list[tuple[str, str, dict[str, Any], Make, int, list[str | int]]] = [
    (*RUNS, lambda n: {"id": text(n)}, 128, ["body", "id"]),
    (*RUNS, lambda n: {"project": text(n)}, 128, ["body", "project"]),
    (*RUNS, lambda n: {"name": text(n)}, 256, ["body", "name"]),
    (*RUNS, lambda n: {"command": text(n)}, 10_000, ["body", "command"]),
    (*RUNS, lambda n: {"git_commit": text(n)}, 64, ["body", "git_commit"]),
    (*RUNS, lambda n: {"host": text(n)}, 256, ["body", "host"]),
    (*RUNS, lambda n: {"devices": texts(n)}, 1024, ["body", "devices"]),
    (*RUNS, lambda n: {"devices": [text(n)]}, 256, ["body", "devices", 0]),
    (*RUNS, lambda n: {"versions": versions(n)}, 1024, ["body", "versions"]),
    (*RUNS, lambda n: {"versions": {"a": text(n)}}, 256, ["body", "versions", "a"]),
    (*RUNS, lambda n: {"capabilities": texts(n)}, 1024, ["body", "capabilities"]),
    (*RUNS, lambda n: {"config": nested(n)}, MAX_DEPTH, ["body", "config"]),
    (*RUNS, lambda n: {"config": many(n)}, MAX_NODES, ["body", "config"]),
    (*RUNS, lambda n: {"started_at": n}, 10**11 - 1, ["body", "started_at"]),
    (*RUNS, lambda n: {"total_steps": n}, MAX_STEP - 1, ["body", "total_steps"]),
    (*SEGMENTS, lambda n: {"key": text(n)}, 128, ["body", "key"]),
    (*SEGMENTS, lambda n: {"fork_step": n}, MAX_STEP - 1, ["body", "fork_step"]),
    (*SEGMENTS, lambda n: {"order": n}, 2**31 - 1, ["body", "order"]),
    (*SEGMENTS, lambda n: {"opened_at": n}, 10**11 - 1, ["body", "opened_at"]),
    (*REPORTS, lambda n: {"steps": [n]}, MAX_STEP - 1, ["body", "steps", 0]),
    (*REPORTS, lambda n: {"times": [n]}, 10**11 - 1, ["body", "times", 0]),
    (*REPORTS, lambda n: {"metrics": {text(n): [1.0]}}, 128, ["body", "metrics", text(129), "[key]"]),
    (*REPORTS, lambda n: {"restorable_steps": [0] * n}, 100_000, ["body", "restorable_steps"]),
    (*REPORTS, lambda n: {"restorable_tiers": [TIER] * n}, 16, ["body", "restorable_tiers"]),
    (*REPORTS, lambda n: {"restorable_tiers": [TIER | {"tier": text(n)}]}, 32, ["body", "restorable_tiers", 0, "tier"]),
    (*REPORTS, lambda n: event(key=text(n)), 128, ["body", "events", 0, "key"]),
    (*REPORTS, lambda n: event(kind=text(n)), 64, ["body", "events", 0, "kind"]),
    (*REPORTS, lambda n: event(step=n), MAX_STEP - 1, ["body", "events", 0, "step"]),
    (*REPORTS, lambda n: event(time=n), 10**11 - 1, ["body", "events", 0, "time"]),
    (*REPORTS, lambda n: event(details=nested(n)), MAX_DEPTH, ["body", "events", 0, "details"]),
    (*REPORTS, lambda n: event(details=many(n)), MAX_NODES, ["body", "events", 0, "details"]),
    ("PUT", "/orders/1", ANSWER, lambda n: {"key": text(n)}, 32, ["body", "key"]),
    ("PUT", "/orders/1", ANSWER, lambda n: {"detail": text(n)}, 10_000, ["body", "detail"]),
    ("PUT", "/orders/1", ANSWER, lambda n: {"rewound_to": n}, MAX_STEP - 1, ["body", "rewound_to"]),
    ("POST", "/runs/r1/finish", FINISH, lambda n: {"at": n}, 10**11 - 1, ["body", "at"]),
    ("POST", "/runs/r1/rollback", {}, lambda n: {"reason": text(n)}, 10_000, ["body", "reason"]),
    ("PUT", "/runs/r1/policy", {}, lambda n: {"min_depth": nested(n - 1)}, MAX_DEPTH, ["body"]),
]


@pytest.mark.parametrize(("method", "path", "body", "make", "limit", "where"), LIMITS)
def test_a_body_is_accepted_at_its_limit_and_refused_beyond(
    http: TestClient, method: str, path: str, body: dict[str, Any], make: Make, limit: int, where: list[str | int]
) -> None:
    trainer = Trainer(http)
    trainer.open("a")
    before = trainer.get()
    beyond = http.request(method, f"{API}{path}", json=body | make(limit + 1))
    problem = beyond.json()
    assert (beyond.status_code, beyond.headers["content-type"]) == (422, "application/problem+json")
    assert problem["where"] == where
    assert len(problem["detail"]) < 500
    assert trainer.get() == before
    assert len(http.get(f"{API}/runs").json()) == 1
    at = http.request(method, f"{API}{path}", json=body | make(limit))
    assert at.status_code != 422 or at.json()["title"].startswith("the policy"), at.text


@pytest.mark.parametrize(
    ("path", "limit", "where"),
    [
        ("/runs/r1/series?metric=loss&points={}", 20_000, ["query", "points"]),
        ("/runs/r1/series?metric=loss&from={}", MAX_STEP - 1, ["query", "from"]),
        ("/runs/r1/series?metric=loss&to={}", MAX_STEP - 1, ["query", "to"]),
        ("/runs/r1/series?metric=loss&segment={}", 2**31 - 1, ["query", "segment"]),
        ("/audit?limit={}", 10_000, ["query", "limit"]),
    ],
)
def test_a_query_is_answered_at_its_limit_and_refused_beyond(
    http: TestClient, path: str, limit: int, where: list[str]
) -> None:
    Trainer(http)
    assert http.get(API + path.format(limit)).status_code == 200
    beyond = http.get(API + path.format(limit + 1))
    assert (beyond.status_code, beyond.json()["where"]) == (422, where)
    assert beyond.json()["detail"]


def test_a_name_of_control_characters_and_a_text_with_nul_are_refused(http: TestClient) -> None:
    for bad in ("", "a\nb", "\x7f", "a\x00"):
        answer = http.post(f"{API}/runs", json=RUN | {"project": bad})
        assert (answer.status_code, answer.json()["where"]) == (422, ["body", "project"]), bad
    for change in ({"command": "x\x00y"}, {"config": {"a": "x\x00y"}}):
        answer = http.post(f"{API}/runs", json=RUN | change)
        assert (answer.status_code, "NUL" in answer.json()["detail"]) == (422, True)


NUMBERS: list[tuple[str, str, dict[str, Any], Callable[[Any], Any], list[str | int]]] = [
    (*RUNS, lambda v: {"total_steps": v}, ["body", "total_steps"]),
    (*RUNS, lambda v: {"started_at": v}, ["body", "started_at"]),
    (*SEGMENTS, lambda v: {"fork_step": v}, ["body", "fork_step"]),
    (*SEGMENTS, lambda v: {"order": v}, ["body", "order"]),
    (*REPORTS, lambda v: {"segment": v}, ["body", "segment"]),
    (*REPORTS, lambda v: {"steps": [v]}, ["body", "steps", 0]),
    (*REPORTS, lambda v: {"times": [v]}, ["body", "times", 0]),
    (*REPORTS, lambda v: {"restorable_steps": [7, v]}, ["body", "restorable_steps", 1]),
    (
        *REPORTS,
        lambda v: {"restorable_tiers": [TIER | {"load_seconds": v}]},
        ["body", "restorable_tiers", 0, "load_seconds"],
    ),
    (*REPORTS, lambda v: event(step=v), ["body", "events", 0, "step"]),
    ("PUT", "/orders/1", ANSWER, lambda v: {"rewound_to": v}, ["body", "rewound_to"]),
    ("POST", "/runs/r1/finish", FINISH, lambda v: {"at": v}, ["body", "at"]),
    ("POST", "/runs/r1/rollback", {}, lambda v: {"skip_to": v}, ["body", "skip_to"]),
]


@pytest.mark.parametrize(("method", "path", "body", "make", "where"), NUMBERS)
def test_what_is_no_number_is_not_made_one(
    http: TestClient, method: str, path: str, body: dict[str, Any], make: Callable[[Any], Any], where: list[str | int]
) -> None:
    """`"12"` and `true` were taken as steps 12 and 1."""
    trainer = Trainer(http)
    trainer.open("a")
    before = trainer.get()
    for wrong in ("12", True, -1, 2**70, 10**400, [1], math.nan, math.inf):
        content = json.dumps(body | make(wrong))  # Python writes NaN and Infinity as such
        answer = http.request(method, f"{API}{path}", content=content, headers=JSON)
        assert (answer.status_code, answer.json()["where"]) == (422, where), (wrong, answer.text)
        assert len(answer.json()["detail"]) < 500
    assert trainer.get() == before


def test_a_whole_number_with_a_point_is_a_step_and_any_other_fraction_is_not(http: TestClient) -> None:
    """Some JSON writers put a point into every number."""
    trainer = Trainer(http, total_steps=600.0)
    segment = trainer.open("a", fork_step=0.0)  # type: ignore[arg-type]
    trainer.report(segment, [0.0, 1, 2.0], {"loss": [1.0] * 3}, restorable_steps=[0.0])  # type: ignore[list-item]
    shown = trainer.get()
    assert (shown["total_steps"], shown["newest_step"]["step"], shown["restorable_steps"]) == (600, 2, [0])
    assert [type(step) for step in (shown["total_steps"], *shown["restorable_steps"])] == [int, int]
    for wrong in (2.5, 1e300):
        answer = http.post(f"{API}/runs/r1/reports", json=REPORT | {"steps": [wrong]})
        assert (answer.status_code, answer.json()["where"]) == (422, ["body", "steps", 0])


@pytest.mark.parametrize("steps", [{}, {"restorable_steps": None}, {"restorable_steps": [0, 60]}])
def test_a_tier_holds_restorable_steps_alone(http: TestClient, steps: dict[str, Any]) -> None:
    Trainer(http).open("a")
    body = REPORT | steps | {"restorable_tiers": [{"tier": "disk", "steps": [0, 50]}]}
    answer = http.post(f"{API}/runs/r1/reports", json=body)
    assert answer.status_code == 422
    assert f"tier 'disk' has step {50 if steps.get('restorable_steps') else 0}, which is not in" in answer.text


def test_every_literal_of_a_number_has_an_answer(http: TestClient) -> None:
    """Metrics and configurations take any number, and say of one that is not finite what it was."""
    trainer = Trainer(http)
    trainer.open("a")
    literals = {
        "NaN": "NaN",
        "Infinity": "Infinity",
        "1e999": "Infinity",
        "-1e999": "-Infinity",
        "-0": 0.0,
        "-0.0": 0.0,
    }
    literals |= {"1180591620717411303424": 2.0**70, "5e-324": 5e-324, "1.7976931348623157e308": 1.7976931348623157e308}
    for step, (literal, expected) in enumerate(literals.items()):
        body = json.dumps(REPORT | {"steps": [step], "metrics": {"a": ["x"]}}).replace('"x"', literal)
        answer = http.post(f"{API}/runs/r1/reports", content=body, headers=JSON)
        assert (answer.status_code, trainer.get()["newest_step"]["metrics"]["a"]) == (200, expected), literal
        body = json.dumps(RUN | {"id": f"r{step + 10}", "config": {"a": "x"}}).replace('"x"', literal)
        answer = http.post(f"{API}/runs", content=body, headers=JSON)
        assert (answer.status_code, answer.json()["config"]["a"]) == (201, expected), literal
    body = json.dumps(REPORT | {"metrics": {"a": [10**400]}})
    answer = http.post(f"{API}/runs/r1/reports", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["where"]) == (422, ["metrics", "a", 0])


def test_of_a_key_that_is_there_twice_the_last_value_counts(http: TestClient) -> None:
    """As for every common JSON reader; what was checked is what is stored."""
    body = json.dumps(RUN)[:-1] + ', "total_steps": -1, "total_steps": 9}'
    answer = http.post(f"{API}/runs", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["total_steps"]) == (201, 9)
    body = json.dumps(RUN)[:-1] + ', "total_steps": 9, "total_steps": -1}'
    answer = http.post(f"{API}/runs", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["where"]) == (422, ["body", "total_steps"])


edges = st.sampled_from([0, 1, 2**31, 2**53 - 1, 2**53, 2**62 - 1, 2**62, 2**63, 2**70, -1])


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reported=st.lists(st.lists(edges | st.integers(0, 2**53 - 1), min_size=1, max_size=5), min_size=1, max_size=6))
def test_steps_of_any_size_and_order_are_stored_or_refused(engine: sa.Engine, reported: list[list[int]]) -> None:
    """Steps near 2**62 were stored, and every report behind them was answered with 500, for ever."""
    with collector(engine) as http:
        http.delete(f"{API}/runs/r1")
        trainer = Trainer(http)
        trainer.open("a")
        stored: set[int] = set()
        for steps in map(sorted, map(set, reported)):
            body = {"steps": steps, "times": [NOW] * len(steps), "metrics": {"loss": [1.0] * len(steps)}}
            answer = http.post(f"{API}/runs/r1/reports", json={"segment": 0} | body)
            is_valid = steps[0] >= 0 and steps[-1] < MAX_STEP
            assert answer.status_code == (200 if is_valid else 422), answer.text
            stored |= set(steps) if is_valid else set()
        for points in (1, 3, 1500):
            series = trainer.get("/series", metric="loss", segment=0, points=points)
            assert sum(series["count"]) == len(stored)
            assert (series["first_step"][:1], series["last_step"][-1:]) == (
                [*stored] and [min(stored)],
                [*stored] and [max(stored)],
            )
