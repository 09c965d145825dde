"""Bodies that are no JSON, or that are made to break a parser."""

import json
import threading
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI
from pydantic import AfterValidator, BaseModel

from lossguard.vocabulary.protocol import API
from monitor.api.parsing import MAX_MISTAKES, SMALL_BODY, TypedJsonRoute
from monitor.schemas import MAX_FIELDS
from tests.monitor.client import TestClient, Trainer


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null"])
def test_a_body_that_is_not_a_report_is_refused(http: TestClient, body: bytes) -> None:
    Trainer(http).open("a")
    answer = http.post(f"{API}/runs/r1/reports", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"config": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"]
)
def test_json_that_is_nested_to_break_a_parser_is_refused(http: TestClient, body: bytes) -> None:
    answer = http.post(f"{API}/runs", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["where"][0] == "body"


def post_report(http: TestClient, body: bytes) -> dict[str, Any]:
    """The problem of a report that is refused with 422."""
    Trainer(http).open("a")
    answer = http.post(f"{API}/runs/r1/reports", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert len(answer.content) < 5_000  # whatever the length of what is quoted
    problem: dict[str, Any] = answer.json()
    return problem


def test_a_list_of_nothing_but_mistakes_is_described_by_its_first(http: TestClient) -> None:
    """A million descriptions took four gigabytes."""
    for steps in ("{}", '"x"', "-1", "1.5"):
        problem = post_report(http, f'{{"segment": 0, "steps": [{",".join([steps] * 10_000)}]}}'.encode())
        assert problem["where"] == ["body", "steps", 0]
        assert problem["detail"].startswith("body.steps.0: Input should be")


@pytest.mark.parametrize("where", [["body"], ["body", "metrics"]])
def test_an_object_with_too_many_names_is_refused_by_one_sentence(http: TestClient, where: list[str]) -> None:
    names = {f"field{number}": 0 for number in range(MAX_FIELDS + 1)}
    problem = post_report(
        http, json.dumps({"segment": 0} | (names if where == ["body"] else {"metrics": names})).encode()
    )
    assert problem["where"] == where
    assert f"at most {MAX_FIELDS} names" in problem["detail"]


def test_many_unknown_fields_are_counted_and_not_described(http: TestClient) -> None:
    body = {"segment": 0} | {f"field{number}": 0 for number in range(MAX_MISTAKES + 1)}
    problem = post_report(http, json.dumps(body).encode())
    assert problem["detail"].startswith(f"the body has {MAX_MISTAKES + 1} mistakes")
    few = post_report(http, b'{"segment": 0, "a": 1, "b": 2}')
    assert few["where"] == ["body", "a"]
    assert few["detail"].endswith("(and 1 more)")


@pytest.mark.parametrize("value", ["[" + "0," * 5_000 + "0]", '"' + "x" * 100_000 + '"'])
def test_a_long_value_or_name_is_quoted_in_part(http: TestClient, value: str) -> None:
    head = b'{"segment": 0, "steps": [0], "times": [0], '
    problem = post_report(http, head + f'"metrics": {{"loss": [{value}]}}}}'.encode())
    assert problem["where"] == ["metrics", "loss", 0]
    problem = post_report(http, head + b'"' + b"n" * 100_000 + b'": 0}')
    assert problem["where"] == ["body", "n" * 256]


def test_a_large_body_is_parsed_in_a_thread_and_a_small_one_where_it_is() -> None:
    threads: list[int] = []

    def note_thread(value: Any) -> Any:
        threads.append(threading.get_ident())
        return value

    class Values(BaseModel):
        values: Annotated[list[int], AfterValidator(note_thread)]

    router = APIRouter(route_class=TypedJsonRoute)

    @router.post("/x")
    async def take(body: Values) -> int:
        threads.append(threading.get_ident())
        return len(body.values)

    app = FastAPI()
    app.include_router(router)
    with TestClient(app) as http:
        for size, is_parsed_here in ((10, True), (SMALL_BODY, False)):
            threads.clear()
            assert http.post("/x", json={"values": [0] * size}).json() == size
            parsed_in, served_in = threads  # and not validated once more
            assert (parsed_in == served_in) is is_parsed_here
