"""The short way of a report stores, answers and refuses what the routes do."""

import json
import math
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from db import queries
from db.lineage import StepRange
from db.steps import reader
from db.store.engine import reading
from lossguard.delivery.spool_delivery import report as report_of
from lossguard.spool.spool_reader import SpoolLine
from lossguard.spool.writer import WRITER_HEADER
from lossguard.vocabulary.protocol import API, MAX_STEP, MAX_TIME, SPOOL_HEADER
from monitor.api import plain_reports
from monitor.schemas import ReportIn
from tests.monitor.client import TestClient, Trainer, writer

ADAPTER = TypeAdapter(ReportIn)
PLAIN = {
    "segment": 0,
    "steps": [0, 1],
    "times": [1.0, 2.0],
    "metrics": {"loss": [2.0, 2.5], "own": [1, "NaN"], "tokens": [1, None]},
}
SHORT_WAY, ROUTES = "application/json", "application/json; charset=utf-8"

names = st.sampled_from(["loss", "own", "tokens", "", "a\nb", "x" * 129, "\ud800", "new"])


def validated(body: bytes) -> dict[str, Any] | None:
    """The report as pydantic makes it; None where it refuses the body."""
    try:
        return ADAPTER.validate_python(json.loads(body)).model_dump()
    except ValidationError:
        return None


EDGES: list[dict[str, Any]] = [
    *({"steps": [step]} for step in (0, MAX_STEP - 1, MAX_STEP, -1, True, 1.0, 1.5, None)),
    *({"times": [time]} for time in (0.0, -0.1, MAX_TIME, math.nextafter(MAX_TIME, 0), math.nan, math.inf, 1, True)),
    *({"segment": number} for number in (2**31 - 1, 2**31, -1, True, 0.0, "0")),
    *({"metrics": {name: value}} for name, value in (("loss", 1), ("loss", []), ("", [1]), ("a\nb", [1]))),
    {"metrics": []},
]


@pytest.mark.parametrize("edge", EDGES, ids=repr)
def test_what_is_just_plain_and_what_is_just_not_are_what_pydantic_finds(edge: dict[str, Any]) -> None:
    body = json.dumps(PLAIN | edge).encode()
    report = plain_reports.parse_now(body)
    assert repr(None if report is None else report.model_dump()) == repr(validated(body))


STEP = SpoolLine(0, b"", {"step": 7, "time": 1.5, "metrics": {"loss": 2.0}})
USUAL_BODIES = [PLAIN, PLAIN | {"events": []}, report_of("session", 0, [STEP], before=0), {"segment": 0, "steps": []}]


@pytest.mark.parametrize("body", USUAL_BODIES, ids=["columns", "no events", "of the SDK", "heartbeat"])
def test_a_report_in_the_usual_form_is_not_validated_by_pydantic(
    body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_reports, "ANY", None)
    parsed = plain_reports.parse_now(json.dumps(body).encode())
    assert parsed is not None
    assert parsed == ReportIn.model_validate(body)


def post(
    http: TestClient, run_id: str, content_type: str, body: Any, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of the answer to a report."""
    return post_raw(http, run_id, content_type, json.dumps(body).encode(), **headers)


def post_raw(
    http: TestClient, run_id: str, content_type: str, body: bytes, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """The same for a body as it is sent."""
    headers |= {"content-type": content_type}
    answer = http.post(f"{API}/runs/{run_id}/reports", content=body, headers=headers)
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


def test_both_ways_answer_alike_whether_they_store_or_refuse(http: TestClient) -> None:
    ours, others = writer("a"), writer("b")
    for run_id in ("short", "long"):
        Trainer(http, run_id, writer=ours).open("a")
    for body in REPORTS:
        for more in ({WRITER_HEADER: ours.to_header(), SPOOL_HEADER: "5"}, {WRITER_HEADER: others.to_header()}, {}):
            short, long = post(http, "short", SHORT_WAY, body, **more), post(http, "long", ROUTES, body, **more)
            assert short == long
    assert post(http, "nobody", SHORT_WAY, PLAIN) == post(http, "nobody", ROUTES, PLAIN)
    for wrong in ({SPOOL_HEADER: "-1"}, {SPOOL_HEADER: str(2**62)}, {WRITER_HEADER: "me"}):
        assert post(http, "short", SHORT_WAY, PLAIN, **wrong)[0] == 422


NUMBERS = ("0", "1", "2.5", "-1", "-0", "-0.0", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1" * 20, "1" * 400)
OTHERS = ("true", "null", "[]", "{}", '""', '"x"', '"NaN"', '"-Infinity"', '"nan"', '"1"', r'"\ud800"', "[[1]]")
NO_JSON = ("01", "1.", "tru", "nan")
tokens = st.sampled_from([*NUMBERS, *OTHERS, *NO_JSON])
"""JSON values as they are written, and some that are no JSON."""
texts = st.lists(tokens, max_size=3).map(lambda some: f"[{','.join(some)}]")
rising = st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True).map(lambda steps: json.dumps(sorted(steps)))
columns = st.lists(st.tuples(names, st.one_of(texts, tokens)), max_size=3).map(
    lambda pairs: "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in pairs) + "}"
)
fields = st.one_of(
    st.tuples(st.just("segment"), st.one_of(st.just("0"), tokens)),
    st.tuples(st.just("steps"), st.one_of(rising, texts, tokens)),
    st.tuples(st.just("times"), st.one_of(st.sampled_from(["[1.0]", "[1.0,2.0]", "[3.0,2.0,1.0]"]), texts, tokens)),
    st.tuples(st.just("metrics"), st.one_of(columns, tokens)),
    st.tuples(st.sampled_from(["events", "hardware", "restorable_steps", "unknown"]), st.one_of(st.just("[]"), tokens)),
)
USUAL = [("segment", "0"), ("steps", "[0,1]"), ("times", "[1.0,2.0]"), ("metrics", '{"loss":[2.0,2.5]}')]


@st.composite
def raw_bodies(draw: st.DrawFn) -> bytes:
    """A report as text: in the usual form but for some fields, which may be there twice; or cut off."""
    changed = draw(st.lists(fields, max_size=3))
    kept = [field for field in USUAL if field[0] not in dict(changed) or draw(st.booleans())]
    body = "{" + ",".join(f'"{name}":{text}' for name, text in draw(st.permutations([*kept, *changed]))) + "}"
    return body.encode()[: draw(st.sampled_from([None, None, None, -1, 9]))]


def stored(session: Session, run_id: str) -> str:
    """All that is stored of the steps of a run."""
    run = queries.run_named(session, run_id=run_id)
    assert run is not None
    metrics = sorted(queries.metric_names(session, run=run))
    blocks = reader.read_blocks(session, run_pk=run.pk, step_range=StepRange(0, 0, None), metrics=metrics)
    return repr([(block.steps.tolist(), block.times.tolist(), block.metrics) for block in blocks])


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.lists(raw_bodies(), min_size=1, max_size=4))
def test_any_body_is_answered_and_stored_alike_in_both_ways(
    http: TestClient, sqlite_engine: sa.Engine, raw: list[bytes]
) -> None:
    run_ids = uuid4().hex, uuid4().hex
    for run_id in run_ids:
        Trainer(http, run_id).open("a")
    for body in raw:
        short, long = (
            post_raw(http, run_id, way, body) for run_id, way in zip(run_ids, (SHORT_WAY, ROUTES), strict=True)
        )
        assert short == long
    with reading(sqlite_engine) as session:
        assert stored(session, run_ids[0]) == stored(session, run_ids[1])


def test_a_plain_report_goes_the_short_way(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(http).open("a")
    monkeypatch.setattr(plain_reports, "to_json", lambda _answer: b'{"way": "short"}')
    assert post(http, "r1", SHORT_WAY, PLAIN)[1] == {"way": "short"}
    assert post(http, "r1", ROUTES, PLAIN)[1]["duplicates"] == 2
