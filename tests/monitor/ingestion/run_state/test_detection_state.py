"""A run's detection state between the store and the engine: what a saved state lacks is relearnt."""

import json
import math
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.models import CRC, DetectionState, DetectorSnapshot, RunStatus, StoredBlock, state_text
from db.store.engine import writing
from lossguard.vocabulary.protocol import API
from monitor.ingestion.run_state import detection_state
from tests.db.seed import stored_run
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import CHECKPOINTS, noise, obey, probe_event, proposed, train_until_nan, trained


def store(row: DetectionState, **changes: Any) -> None:
    """Change the stored state as a collector would that saved it so."""
    state = {name: value for name, value in row.state.items() if name != CRC} | changes
    row.state = json.loads(state_text(state, row.segment, row.seen_step))


def test_a_signal_that_the_stored_state_lacks_is_relearnt_from_the_stored_rows_before_it_is_used(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer = Trainer(http)
    norms = [1.0 + abs(value - 3.0) for value in noise(2, 400)]
    trainer.report(trainer.open("a"), range(400), {"loss": noise(1, 400), "grad_norm": norms})
    with Session(sqlite_engine) as session:
        run = queries.run_named(session, run_id="r1")
        assert run is not None
        before = detection_state.load(session, run).detectors.by_signal
        row = session.get_one(DetectionState, run.pk)
        detectors = row.state["detectors"]
        signals = {name: state for name, state in detectors["signals"].items() if name != "grad_norm"}
        store(row, detectors=detectors | {"signals": signals})
        session.flush()
        after = detection_state.load(session, run).detectors.by_signal
        assert after["loss"].state_dict() == before["loss"].state_dict()
        assert after["grad_norm"].baseline.count == detection_state.SNAPSHOT_EVERY
        assert after["grad_norm"].baseline.level == pytest.approx(before["grad_norm"].baseline.level, abs=0.01)
        session.rollback()


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


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("remedy", {"name": "clip", "state": "ended"}),
        ("checkpoint_uncertified", {"step": 250, "reason": "model.weight holds NaN"}),
    ],
)
def test_the_end_of_a_remedy_and_a_damaged_checkpoint_announce_no_change(
    http: TestClient, sqlite_engine: sa.Engine, kind: str, details: dict[str, Any]
) -> None:
    losses = noise(1, 300)
    event = {"key": "e", "step": 250, "time": NOW, "kind": kind, "details": details}
    for name, events in (("plain", []), ("remedied", [event])):
        trainer = Trainer(http, name)
        segment = trainer.open("a")
        trainer.report(segment, range(250), {"loss": losses[:250]})
        trainer.report(segment, range(250, 300), {"loss": losses[250:]}, events=events)
        trainer.open("b", 290, "rewind")  # the detectors are taught again from what is stored
    with Session(sqlite_engine) as session:
        runs = [queries.run_named(session, run_id=name) for name in ("plain", "remedied")]
        states = [detection_state.load(session, run).state_dict() for run in runs if run is not None]
        assert states[0] == states[1]
    assert [each["details"] for each in trainer.get()["events"]] == [details]


DAMAGE = {
    "empty": "state = '{}'",
    "a list": "state = '[1, 2]'",
    "a text": """state = '"x"'""",
    "cut": "state = substr(state, 1, 300)",
    "no text": "state = x'80ff00'",
    "only a version": """state = '{"version": 3}'""",
    "wrong parts": """state = '{"version": 3, "detectors": 1, "incidents": 2, "interventions": 3}'""",
    "a word for a number": """state = replace(state, '"num_incidents":1', '"num_incidents":"x"')""",
    "plausible numbers": """state = replace(state, '"num_incidents":1', '"num_incidents":7')""",
    "a plausible step": "seen_step = seen_step - 1",
    "no UTF-8": "state = cast(x'7b22ff227d' as text)",
    "deep": f"state = '{'[' * 5000}{']' * 5000}'",
    "ahead": "seen_step = 9000",
    "a word for a step": "seen_step = 'x'",
    "no detectors": """state = replace(state, '"baseline"', '"x"')""",
}


def change(engine: sa.Engine, table: str, values: str) -> None:
    """Change the rows of a table, of which no copy is used then."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {table} SET {values}" if values else f"DELETE FROM {table}")
        connection.exec_driver_sql("UPDATE runs SET revision = revision + 1")


@pytest.mark.parametrize("damage", [*DAMAGE, "gone"])
def test_a_damaged_state_is_rebuilt_once_and_numbers_go_on(
    http: TestClient, sqlite_engine: sa.Engine, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(http)
    (first,) = train_until_nan(trainer)["orders"]
    segment = obey(trainer, first)
    start = first["rewind_to"]
    trainer.report(segment, range(start, start + 300), {"loss": noise(2, 300)}, restorable_steps=CHECKPOINTS)
    change(sqlite_engine, "detection_states", DAMAGE.get(damage, ""))
    end = start + 300
    steps = list(range(end, end + 50))
    trainer.report(segment, steps, {"loss": noise(3, 50)}, restorable_steps=[*CHECKPOINTS, end])
    (second,) = trainer.report(segment, [end + 50], {"loss": [math.nan]})["orders"]
    assert (second["id"], second["incident"]) == (first["id"] + 1, 2)
    run = trainer.get()
    assert [one["number"] for one in run["interventions"]] == [1, 2]
    assert [one["kind"] for one in trainer.get("/incidents")] == ["nonfinite", "nonfinite"]
    logged = [record for record in caplog.records if "was rebuilt" in record.message]
    marks = [one for one in trainer.get()["events"] if one["kind"] == detection_state.REBUILT]
    assert (len(logged), len(marks)) == (1, 1)


def test_an_order_under_way_survives_the_loss_of_the_state(http: TestClient, sqlite_engine: sa.Engine) -> None:
    trainer = Trainer(http)
    (order,) = train_until_nan(trainer)["orders"]
    change(sqlite_engine, "detection_states", DAMAGE["empty"])
    assert [one["id"] for one in trainer.report(0, [], {})["orders"]] == [order["id"]]
    obey(trainer, order)
    assert [one["state"] for one in trainer.get()["interventions"]] == ["applied"]
    assert [one["state"] for one in trainer.get()["orders"]] == ["applied"]


@pytest.mark.parametrize(("verb", "used"), [("", 0), ("/reject", 0), ("/approve", 1)])
def test_a_rebuild_counts_only_rollbacks_that_were_ordered_against_the_budget(
    http: TestClient, sqlite_engine: sa.Engine, verb: str, used: int
) -> None:
    trainer, _ = proposed(http)
    (proposal,) = trainer.get()["interventions"]
    if verb:
        assert http.post(f"{API}/interventions/{proposal['id']}{verb}").status_code == 200
    for loses_state in (False, True):
        if loses_state:
            change(sqlite_engine, "detection_states", "")
        with writing(sqlite_engine) as session:
            engine = detection_state.load(session, stored_run(session))
        assert engine.interventions.rollbacks_used == used


def test_a_state_that_shows_its_damage_only_in_use_costs_one_rebuild(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer, segment = trained(http)
    with Session(sqlite_engine) as session, session.begin():
        row = session.scalars(sa.select(DetectionState)).one()
        signals = row.state["detectors"]["signals"]
        loss = signals["loss"] | {"baseline": signals["loss"]["baseline"] | {"level": "x", "count": None}}
        detectors = row.state["detectors"] | {"signals": signals | {"loss": loss}}
        store(row, detectors=detectors)
        session.execute(sa.text("UPDATE runs SET revision = revision + 1"))
    trainer.report(segment, range(300, 320), {"loss": noise(2, 20)})
    assert len(trainer.report(segment, [320], {"loss": [math.nan]})["orders"]) == 1


@pytest.mark.parametrize("part", [{"recomputed": {"scatter": [3]}}, {"interventions": {"active": {"kind": 7}}}])
def test_a_state_of_which_a_part_cannot_be_read_is_rebuilt_as_a_whole_and_the_run_says_so(
    http: TestClient, sqlite_engine: sa.Engine, part: dict[str, Any]
) -> None:
    trainer, segment = trained(http)
    with Session(sqlite_engine) as session, session.begin():
        store(session.scalars(sa.select(DetectionState)).one(), **part)
        session.execute(sa.text("UPDATE runs SET revision = revision + 1"))
    trainer.report(segment, range(300, 320), {"loss": noise(2, 20)})
    assert [one["kind"] for one in trainer.get()["events"]] == [detection_state.REBUILT]
    assert len(trainer.report(segment, [320], {"loss": [math.nan]})["orders"]) == 1


def test_a_state_of_another_version_costs_one_rebuild_which_says_so(
    http: TestClient, sqlite_engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, segment = trained(http)
    with Session(sqlite_engine) as session, session.begin():
        row = session.scalars(sa.select(DetectionState)).one()
        store(row, version=2)
        session.execute(sa.text("UPDATE runs SET revision = revision + 1"))
    trainer.report(segment, range(300, 320), {"loss": noise(2, 20)})
    (logged,) = [record.message for record in caplog.records if "was rebuilt" in record.message]
    assert "it is of version 2, and this release reads version 1" in logged
    assert len(trainer.report(segment, [320], {"loss": [math.nan]})["orders"]) == 1


@pytest.mark.parametrize("column", ["newest", "peaks", "beats", "report_gaps"])
def test_a_status_that_cannot_be_read_begins_anew(http: TestClient, sqlite_engine: sa.Engine, column: str) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    trainer.report(segment, range(100), {"loss": noise(1, 100)})
    for garbage in ("'[1, \"x\"]'", "'{'", "'{\"loss\": [[]]}'"):
        change(sqlite_engine, "pulses", f"{column} = {garbage}")
        step = trainer.get()["newest_step"]["step"] + 1
        assert trainer.report(segment, [step], {"loss": [3.0]})["accepted"] == 1
    with Session(sqlite_engine) as session:
        assert session.scalars(sa.select(RunStatus.step)).one() == 102


def test_a_damaged_block_stops_neither_intake_nor_detection_when_a_segment_is_opened(
    http: TestClient, sqlite_engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    losses = noise(1, 4000)
    for first in range(0, 4000, 500):
        trainer.report(segment, range(first, first + 500), {"loss": losses[first : first + 500]})
    (order,) = trainer.report(segment, [4000], {"loss": [math.nan]}, restorable_steps=[3900])["orders"]
    with sqlite_engine.begin() as connection:
        connection.execute(sa.delete(sa.table("detector_snapshots")))
        found = connection.execute(sa.select(StoredBlock.first_step).order_by(StoredBlock.first_step)).scalars().all()
        assert len(found) > 3
        broken = sa.update(StoredBlock).where(StoredBlock.first_step.in_([found[1], found[-1]]))
        connection.execute(broken.values(times=b"\x01cut"))
    segment = obey(trainer, order)
    trainer.report(segment, range(3900, 4100), {"loss": noise(2, 200)})
    assert "goes on without some rows" in caplog.text
    trainer.report(segment, [4100], {"loss": [math.nan]})
    assert len(trainer.get("/incidents")) == 2


def test_a_fork_does_not_begin_from_a_damaged_snapshot(http: TestClient, sqlite_engine: sa.Engine) -> None:
    losses, states = noise(1, 900), []
    for name, changed in (("plain", ""), ("damaged", "replace(state, '\"count\":', '\"count\":1')")):
        trainer = Trainer(http, name)
        segment = trainer.open("a")
        for first in range(0, 900, 100):
            trainer.report(segment, range(first, first + 100), {"loss": losses[first : first + 100]})
        if changed:
            change(sqlite_engine, "detector_snapshots", f"state = {changed}")
        trainer.open("b", 700, "rewind")
        with Session(sqlite_engine) as session:
            run = queries.run_named(session, run_id=name)
            assert run is not None
            states.append(detection_state.load(session, run).detectors.by_signal["loss"].baseline)
    assert states[0].count == states[1].count
    assert states[0].level == pytest.approx(states[1].level)


def test_a_fork_before_all_snapshots_reads_as_many_steps_as_a_rebuild(
    http: TestClient, sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection_state, "MAX_REBUILT_STEPS", 100)
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(400), {"loss": noise(1, 400)})
    with sqlite_engine.begin() as connection:
        connection.execute(sa.delete(DetectorSnapshot))
    trainer.open("b", 350, "rewind")
    with Session(sqlite_engine) as session:
        engine = detection_state.load(session, stored_run(session))
    assert engine.last_step == 349
    assert engine.detectors.by_signal["loss"].baseline.count == 100


def test_a_changed_policy_decides_about_the_incident_that_waits_with_the_next_report(http: TestClient) -> None:
    """Not about rows that are read again: such a decision would reach nobody, and end all further ones."""
    trainer, segment = trained(http, policy={"mode": "auto", "name": "palm"})
    high = [value + 1.5 for value in noise(2, 30)]
    for number in range(20):
        trainer.report(segment, [300 + number], {"loss": [high[number]]})
    assert trainer.get()["interventions"] == [], "the spike may still fall back"
    assert http.put(f"{API}/runs/r1/policy", json={"rise_rows": 1}).status_code == 200
    answer = trainer.report(segment, range(320, 330), {"loss": high[20:]})
    assert [each["state"] for each in trainer.get()["interventions"]] == ["ordered"]
    assert [order["kind"] for order in answer["orders"]] == ["rollback"]
