"""The short way of a report stores, answers and refuses what the routes do."""

import json
import math
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lossguard.protocol import API, MAX_STEP, MAX_TIME, SPOOL_HEADER
from lossguard.writer import WRITER_HEADER
from monitor.api import plain_reports
from monitor.api.plain_reports import Parser
from monitor.app import create_app
from monitor.schemas import ReportIn
from monitor.settings import Settings
from tests.monitor.client import NOW, TestClient, Trainer, writer

ADAPTER = TypeAdapter(ReportIn)
PLAIN = {
    "segment": 0,
    "steps": [0, 1],
    "times": [1.0, 2.0],
    "metrics": {"loss": [2.0, 2.5], "own": [1, "NaN"], "tokens": [1, None]},
}
SHORT_WAY, ROUTES = "application/json", "application/json; charset=utf-8"

numbers = st.one_of(
    st.integers(-2, 2**31 + 1),
    st.sampled_from([MAX_STEP - 1, MAX_STEP, MAX_TIME]),
    st.floats(),
    st.booleans(),
    st.none(),
)
values = st.one_of(numbers, st.text(max_size=3))
names = st.sampled_from(["loss", "own", "tokens", "", "a\nb", "x" * 129, "\ud800", "new"])
bodies = st.fixed_dictionaries(
    {},
    optional={
        "segment": numbers,
        "steps": st.one_of(st.lists(numbers, max_size=3), values),
        "times": st.one_of(st.lists(numbers, max_size=3), values),
        "metrics": st.one_of(
            st.dictionaries(names, st.one_of(st.lists(values, max_size=3), values), max_size=3), values
        ),
        "events": st.just([]),
        "unknown": values,
    },
)


def validated(body: bytes) -> dict[str, Any] | None:
    """The report as pydantic makes it; None where it refuses the body."""
    try:
        return ADAPTER.validate_python(json.loads(body)).model_dump()
    except ValidationError:
        return None


@given(bodies)
def test_a_body_is_the_report_that_pydantic_makes_of_it_or_none(parts: dict[str, Any]) -> None:
    parser = Parser()
    parser.parse_now(json.dumps(PLAIN).encode())  # now it knows the names
    for body in (json.dumps(PLAIN | parts), json.dumps(parts)):
        report = parser.parse_now(body.encode())
        assert repr(None if report is None else report.model_dump()) == repr(validated(body.encode()))


EDGES: list[dict[str, Any]] = [
    *({"steps": [step]} for step in (0, MAX_STEP - 1, MAX_STEP, -1, True, 1.0, 1.5, None)),
    *({"times": [time]} for time in (0.0, -0.1, MAX_TIME, math.nextafter(MAX_TIME, 0), math.nan, math.inf, 1, True)),
    *({"segment": number} for number in (2**31 - 1, 2**31, -1, True, 0.0, "0")),
    *({"metrics": {name: value}} for name, value in (("loss", 1), ("loss", []), ("", [1]), ("a\nb", [1]))),
    {"metrics": []},
]


@pytest.mark.parametrize("edge", EDGES, ids=repr)
def test_what_is_just_plain_and_what_is_just_not_are_what_pydantic_finds(edge: dict[str, Any]) -> None:
    parser = Parser()
    parser.parse_now(json.dumps(PLAIN).encode())
    body = json.dumps(PLAIN | edge).encode()
    report = parser.parse_now(body)
    assert repr(None if report is None else report.model_dump()) == repr(validated(body))


def test_a_report_in_the_usual_form_is_not_validated_by_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    parser, body = Parser(), json.dumps(PLAIN).encode()
    expected = parser.parse_now(body)
    monkeypatch.setattr(parser, "_adapter", None)
    assert parser.parse_now(body) == expected


def post(
    http: TestClient, run_id: str, content_type: str, body: Any, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of the answer to a report."""
    headers |= {"content-type": content_type}
    answer = http.post(f"{API}/runs/{run_id}/reports", content=json.dumps(body), headers=headers)
    same = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, answer.json(), same


REPORTS: list[dict[str, Any]] = [
    PLAIN,
    PLAIN | {"steps": [2, 3]},
    PLAIN | {"metrics": {"loss": [1.0]}},
    PLAIN | {"steps": [5, 4]},
    PLAIN | {"segment": 7},
    PLAIN | {"metrics": {"tokens": [2**70, 1]}},
    PLAIN | {"metrics": {"loss": ["x", 1.0]}},
    PLAIN | {"steps": [0, -1]},
    {"segment": 0},
]


def test_both_ways_answer_alike_whether_they_store_or_refuse(sqlite_engine: sa.Engine) -> None:
    ours, others = writer("a"), writer("b")
    with TestClient(create_app(Settings(), engine=sqlite_engine, clock=lambda: NOW)) as http:
        for run_id in ("short", "long"):
            Trainer(http, run_id, writer=ours).open("a")
        for body in REPORTS:
            for more in ({WRITER_HEADER: ours.to_header(), SPOOL_HEADER: "5"}, {WRITER_HEADER: others.to_header()}, {}):
                short, long = post(http, "short", SHORT_WAY, body, **more), post(http, "long", ROUTES, body, **more)
                assert short == long
        assert post(http, "nobody", SHORT_WAY, PLAIN) == post(http, "nobody", ROUTES, PLAIN)
        for wrong in ({SPOOL_HEADER: "-1"}, {SPOOL_HEADER: str(2**62)}, {WRITER_HEADER: "me"}):
            assert post(http, "short", SHORT_WAY, PLAIN, **wrong)[0] == 422


def test_a_plain_report_goes_the_short_way(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(http).open("a")
    monkeypatch.setattr(plain_reports, "to_json", lambda _answer: b'{"way": "short"}')
    assert post(http, "r1", SHORT_WAY, PLAIN)[1] == {"way": "short"}
    assert post(http, "r1", ROUTES, PLAIN)[1]["duplicates"] == 2
