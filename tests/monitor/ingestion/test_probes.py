"""Probes on their way through the collector into the store."""

import math
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import frames, queries
from lossguard.probe import Probe
from lossguard.protocol import API
from monitor.ingestion import detection_state
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import noise


def probe_event(step: int, prompt: str = "def ", **details: Any) -> dict[str, Any]:
    probe = Probe(
        prompt=prompt,
        tokens=("a", "b"),
        log_probabilities=(-0.25, math.nan),
        target="b",
        target_log_probability=math.nan,
        rest_count=3,
        rest_log_probability=-2.0,
    )
    key, body = f"probe-{prompt}-{step}-{len(details)}", probe.to_details() | details
    return {"key": key, "step": step, "time": NOW, "kind": "probe", "details": body}


def test_probes_do_not_move_the_detectors(http: TestClient, sqlite_engine: sa.Engine) -> None:
    losses = noise(1, 400)
    for name, every in (("plain", 1000), ("probed", 7)):
        trainer = Trainer(http, name)
        segment = trainer.open("a")
        for first in range(0, 400, 100):
            events = [probe_event(step) for step in range(first, first + 100) if step % every == 6]
            steps = range(first, first + 100)
            trainer.report(segment, steps, {"loss": losses[first : first + 100]}, events=events)
        trainer.open("b", 350, "rewind")  # the detectors are taught again from what is stored
    with Session(sqlite_engine) as session:
        plain, probed = (queries.run_named(session, run_id=name) for name in ("plain", "probed"))
        assert plain is not None
        assert probed is not None
        states = [detection_state.load(session, run).state_dict() for run in (plain, probed)]
        assert states[0] == states[1]
        assert len(queries.probes(session, run=probed)) == 57
        assert queries.events(session, run=probed) == []


def test_probes_are_read_by_prompt_and_know_whether_they_are_on_the_live_line(
    http_on_both: TestClient, engine: sa.Engine
) -> None:
    trainer = Trainer(http_on_both)
    trainer.report(trainer.open("a"), range(4), {"loss": [1.0] * 4}, events=[probe_event(1), probe_event(3)])
    rewound = trainer.open("b", 2, "rewind")
    events = [probe_event(3) | {"key": "of the new segment"}, probe_event(3, "import ")]
    for _ in range(2):  # sent again
        trainer.report(rewound, [2, 3], {"loss": [1.0] * 2}, events=events)
    with Session(engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        assert queries.prompts(session, run=run) == ["def ", "import "]
        found = queries.probes(session, run=run, prompt="def ")
        table = frames.probes(session, run=run, prompt="def ")
        assert len(frames.probes(session, run=run)) == 3 + len(table)
    assert [(each.segment, each.step, each.live) for each in found] == [(0, 1, True), (0, 3, False), (1, 3, True)]
    assert found[0].probe.rest_count == 3
    last = table.iloc[-3:]
    assert last["token"].tolist()[:2] == ["a", "b"]
    assert last["token"].isna().tolist() == [False, False, True]
    assert last["count"].tolist() == [1, 1, 3]
    assert last["live"].all()
    assert last["log_probability"].tolist()[::2] == [-0.25, -2.0]
    assert math.isnan(last["log_probability"].iloc[1])


def test_the_table_of_a_run_without_probes_is_empty_and_typed(http: TestClient, sqlite_engine: sa.Engine) -> None:
    Trainer(http)
    with Session(sqlite_engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        assert frames.probes(session, run=run).dtypes["log_probability"] == "float64"


def test_a_probe_of_another_form_is_refused_with_its_place(http: TestClient) -> None:
    trainer = Trainer(http)
    body = {"segment": trainer.open("a"), "steps": [], "events": [probe_event(0), probe_event(1, tokens=["a"])]}
    answer = http.post(f"{API}/runs/r1/reports", json=body)
    assert answer.status_code == 422
    assert "1 tokens have 2 log probabilities" in answer.json()["detail"]
    assert answer.json()["where"] == ["body", "events", 1]
