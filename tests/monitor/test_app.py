"""Requests that the API's description allows, and many that it does not, never make the server fail."""

import contextlib
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from lossguard.protocol import API
from monitor import problems
from monitor.app import create_app
from monitor.settings import Settings
from tests.monitor.client import TestClient, Trainer

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


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_makes_the_collector_fail(engine: sa.Engine, mode: GenerationMode) -> None:
    app = create_app(Settings(), engine=engine)
    with TestClient(app) as http:
        trainer = Trainer(http, "r1")
        trainer.report(trainer.open("a"), range(40), {"loss": [1.0] * 40})
        schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"host": "127.0.0.1"})
        operations: list[Any] = list(schema.get_all_operations())
        assert len(operations) >= 18
        for operation in operations:
            asked = operation.ok().as_strategy(generation_mode=mode)
            with contextlib.suppress(Unsatisfiable):  # what takes no parameters cannot be asked wrongly
                RULES(given(case=asked)(check))()
            Trainer(http, "r1").open("a")  # deleted meanwhile
