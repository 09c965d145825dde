"""The closed loop as the protocol shows it: spike, order, rollback, verification."""

import math
import re

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, frames, queries
from db.models import BlockValues, StoredBlock
from db.store.engine import reading, writing
from lossguard.vocabulary.protocol import API, DATA_NOT_REPEATED, SKIPPED_SAMPLE_RETURNED, SPOOL_HEADER
from lossguard.vocabulary.source_facts import SourceFacts
from monitor.ingestion.run_state import detection_state
from tests.db.seed import stored_run
from tests.monitor.client import NOW, Pair, TestClient, Trainer
from tests.monitor.scenarios import (
    CHECKPOINTS,
    noise,
    obey,
    pause_event,
    probe_event,
    source_event,
    train_until_nan,
    trained,
)


def test_a_nan_is_ordered_back_in_the_same_report_and_verified_afterwards(http_on_both: TestClient) -> None:
    trainer = Trainer(http_on_both)
    (order,) = train_until_nan(trainer)["orders"]
    assert (order["kind"], order["rewind_to"]) == ("rollback", 250)
    assert order["skip_from"] <= 300 < order["skip_to"]
    segment = obey(trainer, order)
    assert trainer.report(segment, range(250, 260), {"loss": noise(2, 10)})["orders"] == []
    trainer.report(segment, range(260, 500), {"loss": noise(3, 240)})
    (intervention,) = trainer.get()["interventions"]
    (incident,) = trainer.get("/incidents")
    assert intervention["state"] == "verified"
    assert (incident["kind"], incident["onset_step"], incident["detected_step"]) == ("nonfinite", 300, 300)
    assert intervention["details"]["reasons"]
    (entry,) = trainer.get()["skip_ledger"]
    assert (entry["skip_from"], entry["skip_to"]) == (order["skip_from"], order["skip_to"])


@pytest.mark.parametrize("which", ["its own", "of another run", "none"])
def test_a_skipped_sample_that_comes_again_makes_the_rollback_that_skipped_it_recur(
    http: TestClient, which: str
) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    segment = obey(trainer, order)
    named = {"its own": order["id"], "of another run": None, "none": 2**40}[which]
    if which == "of another run":
        other = Trainer(http, "r2")
        named = train_until_nan(other)["orders"][0]["id"]
    details = {"step": 310, "batch_index": 331, "rows": 2, "order": named}
    event = {"key": "e", "step": 320, "time": NOW, "kind": SKIPPED_SAMPLE_RETURNED, "details": details}
    trainer.report(segment, range(250, 500), {"loss": noise(3, 250)}, events=[event])
    (intervention,) = trainer.get()["interventions"]
    assert intervention["state"] == "recurred"
    assert "at step 310 (2 rows of batch 331)" in intervention["details"]["reasons"][-1]
    (incident,) = trainer.get("/incidents")
    assert (incident["state"], incident["outcome"]) == ("closed", "ongoing")


def test_where_the_data_does_not_repeat_no_batch_is_skipped_any_more(http: TestClient) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    event = {"key": "e", "step": 200, "time": NOW, "kind": DATA_NOT_REPEATED, "details": {"batch_index": 200}}
    answer = trainer.report(segment, range(300), {"loss": noise(1, 300)}, restorable_steps=CHECKPOINTS, events=[event])
    assert "notices" not in answer  # the trainer knows
    (incident,) = trainer.get("/incidents")
    assert (incident["kind"], incident["state"]) == ("replay_mismatch", "open")
    assert "Batch 200 came with other samples at step 200" in incident["details"]["reasons"][0]
    (order,) = trainer.report(segment, [300], {"loss": [math.nan]})["orders"]
    assert order["kind"] == "hold"
    refused = http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 250, "skip_from": 250, "skip_to": 260})
    assert refused.status_code == 409
    assert "the data of this run does not repeat" in refused.json()["detail"]


def test_probes_are_read_by_prompt_and_know_whether_they_are_on_the_live_line(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(4), {"loss": [1.0] * 4}, events=[probe_event(1), probe_event(3)])
    rewound = trainer.open("b", 2, "rewind")
    events = [probe_event(3) | {"key": "of the new segment"}, probe_event(3, "import ")]
    for _ in range(2):  # sent again
        trainer.report(rewound, [2, 3], {"loss": [1.0] * 2}, events=events)
    with Session(sqlite_engine) as session:
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


def test_a_probe_of_another_form_is_refused_with_its_place(http: TestClient) -> None:
    trainer = Trainer(http)
    body = {"segment": trainer.open("a"), "steps": [], "events": [probe_event(0), probe_event(1, tokens=["a"])]}
    answer = http.post(f"{API}/runs/r1/reports", json=body)
    assert answer.status_code == 422
    assert "1 tokens have 2 log probabilities" in answer.json()["detail"]
    assert answer.json()["where"] == ["body", "events", 1]


# Where checkpoints are kept

TIERS = [
    {"tier": "memory", "steps": [280, 290], "load_seconds": 0.5, "save_seconds": 0.02},
    {"tier": "disk", "steps": CHECKPOINTS, "load_seconds": None, "save_seconds": None},
]


def test_the_tiers_of_a_run_are_shown_decided_with_and_forgotten_once_it_reports_none(http: TestClient) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    steps = sorted([*CHECKPOINTS, 280, 290])
    trainer.report(segment, range(300), {"loss": noise(1, 300)}, restorable_steps=steps, restorable_tiers=TIERS)
    assert (trainer.get()["restorable_steps"], trainer.get()["restorable_tiers"]) == (steps, TIERS)
    (order,) = trainer.report(segment, [300], {"loss": [math.nan]})["orders"]
    assert order["rewind_to"] == 280
    reasons = " ".join(trainer.get()["interventions"][0]["details"]["reasons"])
    assert "Rewind to 280 (from memory, 0.5 s), 20 steps before the onset" in reasons
    assert "290 (from memory, 0.5 s), skip 21:" in reasons
    trainer.report(segment, [], {}, restorable_steps=CHECKPOINTS)
    assert (trainer.get()["restorable_steps"], trainer.get()["restorable_tiers"]) == (CHECKPOINTS, None)


def test_a_step_that_comes_late_hides_none_of_the_newer_steps_of_its_report(http: TestClient) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    steps = [*range(11), *range(21, 301)]
    trainer.report(segment, steps, {"loss": noise(1, len(steps))}, restorable_steps=CHECKPOINTS)
    (order,) = trainer.report(segment, [15, 301], {"loss": [3.0, math.nan]})["orders"]
    assert (order["rewind_to"], trainer.get("/incidents")[0]["onset_step"]) == (250, 301)
    assert trainer.report(segment, [16], {"loss": [math.nan]})["accepted"] == 1
    assert len(trainer.get("/incidents")) == 1


CUT = sa.update(BlockValues).values(values=b"\x01cut")
DROPPED = sa.delete(BlockValues)


@pytest.mark.parametrize(
    ("damage", "found"), [(CUT, "a block of run 'r1'"), (DROPPED, "the values of loss of run 'r1'")]
)
def test_a_step_that_comes_late_among_damaged_ones_is_refused_until_the_store_is_whole(
    http_on_both: TestClient, engine: sa.Engine, damage: sa.Update | sa.Delete, found: str
) -> None:
    trainer = Trainer(http_on_both)
    segment = trainer.open("a")
    trainer.report(segment, [step for step in range(600) if step != 100], {"loss": [2.0] * 599})
    with engine.begin() as connection:
        whole = [row._asdict() for row in connection.execute(sa.select(BlockValues.__table__))]
        connection.execute(damage)
    late = {"segment": segment, "steps": [100], "times": [NOW], "metrics": {"loss": [2.0]}}
    refused = http_on_both.post(f"{API}/runs/r1/reports", json=late)
    assert refused.status_code == 409  # with 5xx the SDK would hold back all later steps of the run
    sentence = (
        f"step 100 comes among stored steps that cannot be read: {found}, segment 0, steps 0 to (599|255), .*; restore"
    )
    assert re.match(sentence, refused.json()["detail"])
    assert trainer.report(segment, range(600, 610), {"loss": [2.0] * 10})["accepted"] == 10
    with engine.begin() as connection:
        connection.execute(sa.delete(BlockValues))
        connection.execute(sa.insert(BlockValues), whole)
    assert trainer.report(segment, [100], {"loss": [2.0]})["accepted"] == 1
    assert trainer.get("/series", metric="loss", points=1)["count"] == [610]


def test_steps_among_numbers_that_are_damaged_are_refused_and_those_in_order_wait_for_the_store(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    trainer.report(segment, [step for step in range(600) if step != 100], {"loss": [2.0] * 599})
    with sqlite_engine.begin() as connection:
        connection.execute(sa.update(StoredBlock).values(steps=b"\x01cut"))
    mixed = {"segment": segment, "steps": [100, 600], "times": [NOW] * 2, "metrics": {"loss": [2.0] * 2}}
    refused = http.post(f"{API}/runs/r1/reports", json=mixed)
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("step 100 comes among stored steps that cannot be read: a block of")
    assert trainer.report(segment, range(600, 610), {"loss": [2.0] * 10})["accepted"] == 10


def test_what_is_declared_of_a_source_reaches_the_detection_from_its_step_on(http: TestClient) -> None:
    trainer = Trainer(http)
    losses = noise(1, 60)
    losses[20] = losses[40] = 0.0
    event = source_event("a", 300, SourceFacts(stride=10, nan_filtered=True))
    trainer.report(trainer.open("a"), range(0, 600, 10), {"loss": losses}, events=[event])
    (incident,) = trainer.get("/incidents")
    assert (incident["kind"], incident["onset_step"], incident["detected_step"]) == ("nonfinite", 391, 400)
    assert any("exactly 0" in reason for reason in incident["details"]["reasons"])


@pytest.mark.parametrize("step", [4, 6, None])
def test_a_pause_whose_report_is_delivered_again_after_its_step_is_not_announced_anew(
    http: TestClient, sqlite_engine: sa.Engine, step: int | None
) -> None:
    trainer = Trainer(http)
    segment, sent = trainer.open("a"), {"loss": [2.0] * 6}
    pause = pause_event(6, 600.0) | {"step": step}
    for _ in range(2):
        trainer.report(segment, range(6), sent, events=[pause])
        trainer.report(segment, [6], {"loss": [2.0]})
    with writing(sqlite_engine) as session:
        run = stored_run(session)
        assert commands.run_status_of(session, run=run, now=NOW).expected_by is None
        assert detection_state.load(session, run).throughput.pauses == []
    trainer.report(segment, range(6), sent, events=[pause])
    with reading(sqlite_engine) as session:
        assert commands.run_status_of(session, run=stored_run(session), now=NOW).expected_by is None


def test_a_decision_that_waits_for_newer_rows_is_not_lost_where_another_collector_goes_on(pair: Pair) -> None:
    trainer, segment = trained(pair[0])
    trainer.headers = {SPOOL_HEADER: "200000"}
    for step in (300, 301):
        assert trainer.report(segment, [step], {"loss": [math.nan]})["orders"] == []
    trainer.http, trainer.headers = pair[1], {}
    assert [each["rewind_to"] for each in trainer.report(segment, [302], {"loss": [math.nan]})["orders"]] == [250]


@pytest.mark.parametrize("spool_bytes", [0, 200_000])
def test_what_recovered_while_the_trainer_was_far_ahead_needs_no_order(http: TestClient, spool_bytes: int) -> None:
    """A spool that is delivered after an outage: the trainer would go back by all the steps that it did meanwhile."""
    trainer, segment = trained(http)
    trainer.headers = {SPOOL_HEADER: str(spool_bytes)}
    answer = trainer.report(segment, range(300, 320), {"loss": [math.nan, *noise(2, 19)]})
    assert len(answer["orders"]) == (spool_bytes == 0)
