"""Every limit of the protocol: a request at it is accepted, one beyond it is refused with its place and a remedy."""

from collections.abc import Callable
from typing import Any

import pytest

from lossguard.protocol import API, MAX_DEPTH, MAX_NODES
from tests.monitor.client import NOW, TestClient, Trainer

RUN = {"id": "r2", "project": "p", "started_at": NOW}
SEGMENT = {"key": "b", "reason": "resume", "opened_at": NOW}
REPORT: dict[str, Any] = {"segment": 0, "steps": [0], "times": [NOW], "metrics": {"loss": [1.0]}}
EVENT = {"key": "e", "kind": "note", "time": NOW}
ANSWER = {"state": "failed"}
FINISH = {"state": "finished", "at": NOW}


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


Make = Callable[[int], Any]
LIMITS: list[tuple[str, str, dict[str, Any], Make, int, list[str | int]]] = [
    ("POST", "/runs", RUN, lambda size: {"id": text(size)}, 128, ["body", "id"]),
    ("POST", "/runs", RUN, lambda size: {"project": text(size)}, 128, ["body", "project"]),
    ("POST", "/runs", RUN, lambda size: {"name": text(size)}, 256, ["body", "name"]),
    ("POST", "/runs", RUN, lambda size: {"command": text(size)}, 10_000, ["body", "command"]),
    ("POST", "/runs", RUN, lambda size: {"git_commit": text(size)}, 64, ["body", "git_commit"]),
    ("POST", "/runs", RUN, lambda size: {"host": text(size)}, 256, ["body", "host"]),
    ("POST", "/runs", RUN, lambda size: {"devices": texts(size)}, 1024, ["body", "devices"]),
    ("POST", "/runs", RUN, lambda size: {"devices": [text(size)]}, 256, ["body", "devices", 0]),
    ("POST", "/runs", RUN, lambda size: {"versions": versions(size)}, 1024, ["body", "versions"]),
    ("POST", "/runs", RUN, lambda size: {"versions": {"a": text(size)}}, 256, ["body", "versions", "a"]),
    ("POST", "/runs", RUN, lambda size: {"capabilities": texts(size)}, 1024, ["body", "capabilities"]),
    ("POST", "/runs", RUN, lambda size: {"config": nested(size)}, MAX_DEPTH, ["body", "config"]),
    ("POST", "/runs", RUN, lambda size: {"config": many(size)}, MAX_NODES, ["body", "config"]),
    ("POST", "/runs", RUN, lambda size: {"started_at": size}, 10**11 - 1, ["body", "started_at"]),
    ("POST", "/runs", RUN, lambda size: {"total_steps": size}, 2**62 - 1, ["body", "total_steps"]),
    ("POST", "/runs/r1/segments", SEGMENT, lambda size: {"key": text(size)}, 128, ["body", "key"]),
    ("POST", "/runs/r1/segments", SEGMENT, lambda size: {"fork_step": size}, 2**62 - 1, ["body", "fork_step"]),
    ("POST", "/runs/r1/segments", SEGMENT, lambda size: {"order": size}, 2**31 - 1, ["body", "order"]),
    ("POST", "/runs/r1/segments", SEGMENT, lambda size: {"opened_at": size}, 10**11 - 1, ["body", "opened_at"]),
    ("POST", "/runs/r1/reports", REPORT, lambda size: {"steps": [size]}, 2**62 - 1, ["body", "steps", 0]),
    ("POST", "/runs/r1/reports", REPORT, lambda size: {"times": [size]}, 10**11 - 1, ["body", "times", 0]),
    (
        *("POST", "/runs/r1/reports", REPORT, lambda size: {"metrics": {text(size): [1.0]}}, 128),
        ["body", "metrics", text(129), "[key]"],
    ),
    (
        *("POST", "/runs/r1/reports", REPORT, lambda size: {"restorable_steps": [0] * size}, 100_000),
        ["body", "restorable_steps"],
    ),
    ("POST", "/runs/r1/reports", REPORT, lambda size: event(key=text(size)), 128, ["body", "events", 0, "key"]),
    ("POST", "/runs/r1/reports", REPORT, lambda size: event(kind=text(size)), 64, ["body", "events", 0, "kind"]),
    ("POST", "/runs/r1/reports", REPORT, lambda size: event(step=size), 2**62 - 1, ["body", "events", 0, "step"]),
    ("POST", "/runs/r1/reports", REPORT, lambda size: event(time=size), 10**11 - 1, ["body", "events", 0, "time"]),
    (
        *("POST", "/runs/r1/reports", REPORT, lambda size: event(details=nested(size)), MAX_DEPTH),
        ["body", "events", 0, "details"],
    ),
    (
        *("POST", "/runs/r1/reports", REPORT, lambda size: event(details=many(size)), MAX_NODES),
        ["body", "events", 0, "details"],
    ),
    ("PUT", "/orders/1", ANSWER, lambda size: {"key": text(size)}, 32, ["body", "key"]),
    ("PUT", "/orders/1", ANSWER, lambda size: {"detail": text(size)}, 10_000, ["body", "detail"]),
    ("PUT", "/orders/1", ANSWER, lambda size: {"rewound_to": size}, 2**62 - 1, ["body", "rewound_to"]),
    ("POST", "/runs/r1/finish", FINISH, lambda size: {"at": size}, 10**11 - 1, ["body", "at"]),
    ("POST", "/runs/r1/rollback", {}, lambda size: {"reason": text(size)}, 10_000, ["body", "reason"]),
    ("PUT", "/runs/r1/policy", {}, lambda size: {"min_depth": nested(size - 1)}, MAX_DEPTH, ["body"]),
]


@pytest.mark.parametrize(("method", "path", "body", "make", "limit", "where"), LIMITS)
def test_a_body_is_accepted_at_its_limit_and_refused_beyond(
    http: TestClient,
    method: str,
    path: str,
    body: dict[str, Any],
    make: Make,
    limit: int,
    where: list[str | int],
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
        ("/runs/r1/series?metric=loss&from={}", 2**62 - 1, ["query", "from"]),
        ("/runs/r1/series?metric=loss&to={}", 2**62 - 1, ["query", "to"]),
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


def test_a_name_of_control_characters_is_refused(http: TestClient) -> None:
    for bad in ("", "a\nb", "\x7f", "a\x00"):
        answer = http.post(f"{API}/runs", json=RUN | {"project": bad})
        assert (answer.status_code, answer.json()["where"]) == (422, ["body", "project"]), bad
