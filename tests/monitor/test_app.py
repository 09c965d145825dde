"""Requests that the API's description allows, and many that it does not, never make the server fail."""

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from lossguard.vocabulary.protocol import API
from monitor import problems
from monitor.problems import MLFLOW_API
from tests.monitor.client import NOW, TestClient, Trainer, collector
from tests.monitor.mlflow import MlflowClient
from tests.monitor.verdict import VERDICT

RULES = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)


def test_every_operation_describes_the_real_shape_of_an_error(http: TestClient) -> None:
    description = http.get("/openapi.json").json()
    operations = [one for path in description["paths"].values() for one in path.values()]
    for operation in operations:
        content = operation["responses"]["default"]["content"]
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        assert "422" not in operation["responses"]
    assert "HTTPValidationError" not in description["components"]["schemas"]
    jsonschema_rs.validate(description["components"]["schemas"]["Problem"], http.get(f"{API}/runs/nobody").json())


def check(case: Any) -> None:
    """No 5xx, and every error in one shape."""
    if "run_id" in (case.path_parameters or {}):
        case.path_parameters["run_id"] = "r1"  # else nearly every request would end at "no such run"
    answer = case.call(base_url="http://127.0.0.1")
    assert answer.status_code < 500, (case, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == ["application/problem+json"], (case, answer.headers)
        jsonschema_rs.validate(problems.SCHEMA, answer.json())
        assert answer.json()["detail"]


@pytest.mark.system
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_no_request_makes_the_collector_fail(engine: sa.Engine, mode: str) -> None:
    import schemathesis  # the quick tests do without: it takes half a second in every process

    with collector(engine) as http:
        trainer = Trainer(http, "r1")
        trainer.report(trainer.open("a"), range(40), {"loss": [1.0] * 40})
        schema = schemathesis.openapi.from_asgi("/openapi.json", http.app, headers={"host": "127.0.0.1"})
        operations: list[Any] = list(schema.get_all_operations())
        assert len(operations) >= 18
        for operation in operations:
            asked = operation.ok().as_strategy(generation_mode=schemathesis.GenerationMode[mode])
            with contextlib.suppress(Unsatisfiable):  # what takes no parameters cannot be asked wrongly
                RULES(given(case=asked)(check))()
            Trainer(http, "r1").open("a")  # deleted meanwhile


HOSTILE: list[Any] = [
    *(True, None, "12", "", "\x00", "\ud800", [], {}, [[]], {"": [None]}),
    *(
        -1,
        2**31,
        2**53,
        2**62 - 1,
        2**63,
        2**70,
        10**400,
        -0.0,
        1.5,
        12.0,
        1e308,
        5e-324,
        math.inf,
        -math.inf,
        math.nan,
    ),
]
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/runs"): {"id": "r1", "project": "p", "config": {"lr": 0.1, "deep": [{"a": 1}]}, "started_at": NOW}
    | {"devices": ["cpu"], "versions": {"torch": "2"}, "capabilities": ["rollback"], "total_steps": 9},
    ("POST", "/runs/r1/segments"): {"key": "b", "fork_step": 20, "reason": "rewind", "order": 1, "opened_at": NOW},
    ("POST", "/runs/r1/reports"): {
        "segment": 0,
        "steps": [50],
        "times": [NOW],
        "metrics": {"loss": [1.0], "tokens": [7]},
    }
    | {"restorable_steps": [10], "events": [{"key": "k", "step": 50, "time": NOW, "kind": "lr", "details": {"a": 1}}]},
    ("PUT", "/orders/1"): {"key": "k", "state": "applied", "detail": "d"}
    | {"rewound_to": 10, "skip_from": 10, "skip_to": 20},
    ("POST", "/runs/r1/finish"): {"state": "finished", "at": NOW},
    ("PUT", "/runs/r1/incidents/1/verdict"): VERDICT | {"excerpts": []},
    ("POST", "/runs/r1/rollback"): {"rewind_to": 10, "skip_to": 60, "reason": "r"},
    ("PUT", "/runs/r1/policy"): {"mode": "auto", "patience": 8, "lr_scale": 0.5, "detection": {"calm_rows": 5}},
}


def replaced(value: Any, hostile: Any) -> Iterator[Any]:
    """The value with one of its parts replaced, for every part, and itself."""
    yield hostile
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        for changed in replaced(part, hostile):
            copy = value.copy()
            copy[key] = changed
            yield copy


ON_POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))
"""It takes fewer values than SQLite."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "database_url", [pytest.param("sqlite", marks=pytest.mark.system), ON_POSTGRESQL], indirect=True
)
@pytest.mark.parametrize(("method", "path"), BODIES)
def test_no_value_anywhere_in_a_body_makes_the_collector_fail(engine: sa.Engine, method: str, path: str) -> None:
    """Large numbers, NaN, wrong types: taken or refused with a sentence, and the run stays readable."""
    with collector(engine) as http:
        trainer = Trainer(http, "r1")
        trainer.report(trainer.open("a"), range(40), {"loss": [2.0] * 39 + [math.nan]}, restorable_steps=[10])
        for hostile in HOSTILE:
            for body in replaced(BODIES[method, path], hostile):
                content = json.dumps(body)  # Python writes NaN and Infinity as such
                headers = {"content-type": "application/json"}
                answer = http.request(method, f"{API}{path}", content=content, headers=headers)
                assert answer.status_code < 500, (content, answer.text)
                if answer.status_code >= 400:
                    assert 10 < len(answer.json()["detail"]) < 600, (content, answer.text)
        for part in ("", "/incidents", "/series?metric=loss"):
            assert http.get(f"{API}/runs/r1{part}").status_code == 200
        Trainer(http, "r2")
        assert {run["id"] for run in http.get(f"{API}/runs").json()} >= {"r1", "r2"}


PAIRS = [{"key": "a", "value": "b"}]
METRIC = {"key": "loss", "value": 1.0, "timestamp": 1, "step": 1}
MLFLOW_BODIES: dict[str, dict[str, Any]] = {
    "experiments/create": {"name": "gpt", "artifact_location": "", "tags": PAIRS},
    "experiments/search": {"filter": "name = 'a'", "max_results": 5, "page_token": "1", "view_type": "ALL"},
    "runs/create": {"experiment_id": "0", "user_id": "me", "run_name": "warm", "start_time": 1, "tags": PAIRS},
    "runs/update": {"run_id": None, "status": "FINISHED", "end_time": 1, "run_name": "hot"},
    "runs/log-metric": {"run_id": None, **METRIC},
    "runs/log-batch": {"run_id": None, "metrics": [METRIC], "params": PAIRS, "tags": PAIRS},
    "runs/log-inputs": {"run_id": None, "datasets": [{"dataset": {"name": "c4"}, "tags": PAIRS}]},
    "runs/search": {"experiment_ids": ["0"], "filter": "params.a = 'b'", "max_results": 5, "page_token": ""},
}


@pytest.mark.slow
@pytest.mark.parametrize("route", MLFLOW_BODIES)
def test_no_value_anywhere_in_a_body_of_an_mlflow_client_makes_the_collector_fail(
    sqlite_engine: sa.Engine, route: str
) -> None:
    with collector(sqlite_engine) as http:
        client = MlflowClient(http)
        body = {name: client.run_id if name == "run_id" else value for name, value in MLFLOW_BODIES[route].items()}
        for hostile in HOSTILE:
            for changed in replaced(body, hostile):
                headers = {"content-type": "application/json"}
                answer = http.post(f"{MLFLOW_API}/{route}", content=json.dumps(changed), headers=headers)
                assert answer.status_code < 500, (changed, answer.text)
                if answer.status_code >= 400:
                    assert 10 < len(answer.json()["message"]) < 600, (changed, answer.text)
        client.end()
        assert client.shown()["info"]["status"] == "FINISHED"
        assert http.get(f"{API}/runs/{client.run_id}/series?metric=loss").status_code == 200
