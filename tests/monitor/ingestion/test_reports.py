"""The closed loop as the protocol shows it: spike, order, rollback, verification."""

import math
import re
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from sqlalchemy.orm import Session

from db import frames, queries
from db.models import BlockValues, StoredBlock
from lossguard import Guard
from lossguard.run.recording import RecordingRun
from lossguard.torch import Checkpoints
from lossguard.vocabulary.protocol import API, DATA_NOT_REPEATED, SKIPPED_SAMPLE_RETURNED
from lossguard.vocabulary.source_facts import SourceFacts
from tests.monitor.client import NOW, AppClient, TestClient, Trainer
from tests.monitor.scenarios import CHECKPOINTS, noise, obey, probe_event, source_event, train_until_nan
from tests.waiting import eventually


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


def test_an_incident_that_recurs_is_blamed_on_its_batches_and_they_are_skipped(http: TestClient) -> None:
    """A gradient norm that is not finite while the loss is: at first the state is blamed."""
    trainer, nan = Trainer(http), float("nan")
    segment = trainer.open("a")
    norms = {"grad_norm": noise(4, 300)}
    trainer.report(segment, range(300), {"loss": noise(1, 300)} | norms, restorable_steps=CHECKPOINTS)
    (first,) = trainer.report(segment, [300], {"loss": [3.0], "grad_norm": [nan]})["orders"]
    segment = obey(trainer, first)
    trainer.report(segment, range(250, 300), {"loss": noise(2, 50), "grad_norm": norms["grad_norm"][250:]})
    (second,) = trainer.report(segment, [300], {"loss": [3.0], "grad_norm": [nan]})["orders"]
    assert second["id"] != first["id"]
    assert first["skip_from"] is None
    assert second["skip_from"] <= 300 < second["skip_to"]
    states = [one["state"] for one in trainer.get()["interventions"]]
    assert states == ["recurred", "ordered"]
    obey(trainer, second, key="second")
    (entry,) = trainer.get()["skip_ledger"]
    assert (entry["skip_from"], entry["skip_to"]) == (second["skip_from"], second["skip_to"])


@pytest.mark.parametrize("which", ["its own", "of another run", "none"])
def test_a_skipped_sample_that_comes_again_makes_the_rollback_that_skipped_it_recur(
    http_on_both: TestClient, which: str
) -> None:
    trainer = Trainer(http_on_both)
    (order,) = train_until_nan(trainer)["orders"]
    segment = obey(trainer, order)
    named = {"its own": order["id"], "of another run": None, "none": 2**40}[which]
    if which == "of another run":
        other = Trainer(http_on_both, "r2")
        named = train_until_nan(other)["orders"][0]["id"]
    details = {"step": 310, "batch_index": 331, "rows": 2, "order": named}
    event = {"key": "e", "step": 320, "time": NOW, "kind": SKIPPED_SAMPLE_RETURNED, "details": details}
    trainer.report(segment, range(250, 500), {"loss": noise(3, 250)}, events=[event])
    (intervention,) = trainer.get()["interventions"]
    assert intervention["state"] == "recurred"
    assert "at step 310 (2 rows of batch 331)" in intervention["details"]["reasons"][-1]
    (incident,) = trainer.get("/incidents")
    assert (incident["state"], incident["outcome"]) == ("closed", "ongoing")


def test_a_sample_that_another_rollback_skipped_changes_nothing(http: TestClient) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    segment = obey(trainer, order)
    trainer.report(segment, range(250, 450), {"loss": noise(3, 200)})
    nan = trainer.report(segment, [450], {"loss": [math.nan]}, restorable_steps=[*CHECKPOINTS, 400])
    second = nan["orders"][0]
    again = obey(trainer, second, key="c")
    details = {"step": 440, "batch_index": 470, "rows": 2, "order": order["id"]}
    event = {"key": "e", "step": 440, "time": NOW, "kind": SKIPPED_SAMPLE_RETURNED, "details": details}
    trainer.report(
        again, range(second["rewind_to"], 700), {"loss": noise(4, 700 - second["rewind_to"])}, events=[event]
    )
    assert [each["state"] for each in trainer.get()["interventions"]] == ["verified", "verified"]


def test_where_the_data_does_not_repeat_no_batch_is_skipped_any_more(http_on_both: TestClient) -> None:
    trainer = Trainer(http_on_both)
    segment = trainer.open("a")
    event = {"key": "e", "step": 200, "time": NOW, "kind": DATA_NOT_REPEATED, "details": {"batch_index": 200}}
    answer = trainer.report(segment, range(300), {"loss": noise(1, 300)}, restorable_steps=CHECKPOINTS, events=[event])
    assert "notices" not in answer  # the trainer knows
    (incident,) = trainer.get("/incidents")
    assert (incident["kind"], incident["state"]) == ("replay_mismatch", "open")
    assert "Batch 200 came with other samples at step 200" in incident["details"]["reasons"][0]
    (order,) = trainer.report(segment, [300], {"loss": [math.nan]})["orders"]
    assert order["kind"] == "hold"
    refused = http_on_both.post(f"{API}/runs/r1/rollback", json={"rewind_to": 250, "skip_from": 250, "skip_to": 260})
    assert refused.status_code == 409
    assert "the data of this run does not repeat" in refused.json()["detail"]


def test_the_detection_does_not_depend_on_how_the_steps_are_reported(http: TestClient) -> None:
    whole, parts = Trainer(http, "whole"), Trainer(http, "parts")
    train_until_nan(whole)
    train_until_nan(parts, split=(1, 2, 77, 78, 200, 300))
    for trainer in (whole, parts):
        obey(trainer, trainer.report(0, [], {})["orders"][0])
    fields = ("kind", "onset_step", "detected_step", "score", "state")
    one, other = (
        [{name: row[name] for name in fields} for row in trainer.get("/incidents")] for trainer in (whole, parts)
    )
    assert one == other


def test_a_run_that_only_reports_gets_no_order(http: TestClient) -> None:
    trainer = Trainer(http, capabilities=[])
    assert train_until_nan(trainer)["orders"] == []
    assert len(trainer.get("/incidents")) == 1


def test_metrics_show_live_runs_and_drop_ended_ones(http: TestClient) -> None:
    trainer = Trainer(http)
    train_until_nan(trainer)
    text = http.get("/metrics").text
    assert 'lossguard_loss_nats{project="gpt",run="r1"} NaN' in text
    assert 'lossguard_step{project="gpt",run="r1"} 300.0' in text
    assert 'lossguard_incident_onset_step{kind="nonfinite",project="gpt",run="r1",state="treated"} 300.0' in text
    assert "lossguard_steps_total 301.0" in text
    http.post(f"{API}/runs/r1/finish", json={"state": "finished", "at": 1.0})
    assert 'run="r1"' not in http.get("/metrics").text


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


# Where checkpoints are kept

TIERS = [
    {"tier": "memory", "steps": [280, 290], "load_seconds": 0.5, "save_seconds": 0.02},
    {"tier": "disk", "steps": CHECKPOINTS, "load_seconds": None, "save_seconds": None},
]


def test_the_tiers_of_a_run_are_shown_decided_with_and_forgotten_with_an_older_sdk(http_on_both: TestClient) -> None:
    trainer = Trainer(http_on_both)
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


@pytest.mark.slow
def test_a_guard_reports_its_memory_and_the_process_after_it_the_disk_alone(http: TestClient, tmp_path: Path) -> None:
    def train(until: int, rewind_at: int | None = None) -> None:
        model = torch.nn.Linear(2, 2)
        checkpoints = Checkpoints(tmp_path / "checkpoints", memory=2, memory_every=3, model=model)
        registration = {"id": "r1", "project": "p", "started_at": time.time(), "capabilities": []}
        with RecordingRun(registration=registration, directory=tmp_path / "r1", client=AppClient(http)) as run:
            for step, _ in Guard(run, checkpoints=checkpoints, every=5, signals=()).steps(range(100), until):
                run.log(step, loss=1.0)
                if step == rewind_at:
                    rewind_at = None
                    assert eventually(lambda: 18 in http.get(f"{API}/runs/r1").json()["restorable_steps"])
                    assert http.post(f"{API}/runs/r1/rollback", json={"rewind_to": 18}).status_code == 200
                    assert eventually(lambda: bool(run._inbox))

    train(22, rewind_at=19)
    memory, disk = http.get(f"{API}/runs/r1").json()["restorable_tiers"]
    assert (memory["tier"], memory["steps"], disk["tier"]) == ("memory", [18, 21], "disk")
    assert memory["load_seconds"] > 0
    assert memory["save_seconds"] > 0
    assert disk["load_seconds"] is None
    train(22)
    (disk,) = http.get(f"{API}/runs/r1").json()["restorable_tiers"]
    assert (disk["tier"], disk["steps"][-1]) == ("disk", 22)
    assert disk["load_seconds"] > 0


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
    http_on_both: TestClient, engine: sa.Engine
) -> None:
    trainer = Trainer(http_on_both)
    segment = trainer.open("a")
    trainer.report(segment, [step for step in range(600) if step != 100], {"loss": [2.0] * 599})
    with engine.begin() as connection:
        connection.execute(sa.update(StoredBlock).values(steps=b"\x01cut"))
    mixed = {"segment": segment, "steps": [100, 600], "times": [NOW] * 2, "metrics": {"loss": [2.0] * 2}}
    refused = http_on_both.post(f"{API}/runs/r1/reports", json=mixed)
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("step 100 comes among stored steps that cannot be read: a block of")
    assert trainer.report(segment, range(600, 610), {"loss": [2.0] * 10})["accepted"] == 10


def test_what_is_declared_of_a_source_reaches_the_detection_from_its_step_on(http_on_both: TestClient) -> None:
    trainer = Trainer(http_on_both)
    losses = noise(1, 60)
    losses[20] = losses[40] = 0.0
    event = source_event("a", 300, SourceFacts(stride=10, nan_filtered=True))
    trainer.report(trainer.open("a"), range(0, 600, 10), {"loss": losses}, events=[event])
    (incident,) = trainer.get("/incidents")
    assert (incident["kind"], incident["onset_step"], incident["detected_step"]) == ("nonfinite", 391, 400)
    assert any("exactly 0" in reason for reason in incident["details"]["reasons"])
