"""What is written is written once, and belongs to its run."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Base, Order, Run, RunSetting
from db.records import arms, hardware, policies, preflights, step_notes
from db.runs import mlflow
from db.store.engine import reading, writing
from lossguard.vocabulary.states import OrderState
from tests.db.seed import NOW, add_run, add_segment, add_steps, statements_of

OF_THE_STORE = ["schema_compatibility"]
"""Tables whose rows belong to no run."""


def proposed_order(session: sa.orm.Session, run: Run) -> Order:
    facts: dict[str, Any] = {"incident": 1, "kind": "rollback", "state": "ordered", "attempt": 1, "details": {}}
    facts |= {"rewind_to": 100, "skip_from": 100, "skip_to": 300, "lr_scale": None}
    intervention = commands.save_intervention(session, run=run, number=1, now=NOW, **facts)
    return commands.issue_order(session, intervention=intervention, reason="because", now=NOW)


def test_what_comes_twice_is_stored_once(engine: sa.Engine) -> None:
    event: dict[str, Any] = {"segment": 0, "step": 3, "time": NOW, "kind": "learning_rate", "details": {"value": 0.1}}
    with writing(engine) as session:
        run = add_run(session)
        assert add_run(session).pk == run.pk
        assert [add_segment(session, run, key, fork_step=10).number for key in "aab"] == [0, 0, 1]
        assert proposed_order(session, run).id == proposed_order(session, run).id
        assert [commands.add_event(session, run=run, key="a", **event) for _ in range(2)] == [True, False]
        assert (len(queries.runs(session)), len(queries.orders(session, run=run))) == (1, 1)


def test_the_events_of_a_report_are_looked_for_by_one_query(engine: sa.Engine) -> None:
    statements = statements_of(engine)
    event: dict[str, Any] = {"segment": 0, "step": 3, "time": NOW, "kind": "note", "details": {}}

    def record(*keys: str) -> tuple[list[bool], int]:
        with writing(engine) as session:
            run = add_run(session)
            session.flush()
            statements.clear()
            are_new = commands.add_events(session, run=run, events=[{"key": key, **event} for key in keys])
            return are_new, sum(statement.startswith("SELECT") for statement in statements)

    assert record("a") == ([True], 1)
    assert record("a", "b", "c", "b", "d") == ([False, True, True, False, True], 1)
    with reading(engine) as session:
        assert [each.key for each in queries.events(session, run=queries.runs(session)[0])] == ["a", "b", "c", "d"]


def test_a_process_that_resumes_a_run_replaces_what_the_one_before_said_of_itself(engine: sa.Engine) -> None:
    with writing(engine) as session:
        add_run(session, name="run", config={"lr": 0.1}, host="a", devices=["A100"], git_commit="1", total_steps=10)
        run = add_run(session, name="resumed", config={"lr": 0.2}, host="b", devices=["H100"] * 2, total_steps=None)
        assert (run.config, run.host, run.devices, run.name) == ({"lr": 0.2}, "b", ["H100"] * 2, "run")
        assert (run.git_commit, run.total_steps) == ("1", 10)


def test_a_setting_that_is_true_instead_of_1_at_a_resume_is_stored_and_found(engine: sa.Engine) -> None:
    with writing(engine) as session:
        add_run(session, config={"compile": 1})
    with writing(engine) as session:
        add_run(session, config={"compile": True})
    with reading(engine) as session:
        (run,) = queries.runs(session)
        assert run.config["compile"] is True
        assert session.scalars(sa.select(RunSetting.text).where(RunSetting.name == "config.compile")).all() == ["true"]


def test_a_resume_learns_its_parent_from_its_first_step(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), range(10))
        resumed = add_segment(session, run, "b", fork_step=None)
        assert resumed.fork_step is None
        commands.set_fork_step(session, run=run, segment=resumed, first_step=8)
        assert resumed.parent == 0


def test_an_answered_order_stays_as_it_was_answered(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        order = proposed_order(session, run)
        answer: dict[str, Any] = {"rewound_to": 75, "skip_from": 75, "skip_to": 300, "detail": "", "now": NOW}
        assert commands.answer_order(session, order=order, state=OrderState.APPLIED, **answer)
        assert not commands.answer_order(session, order=order, state=OrderState.FAILED, **answer)
        assert order.state == OrderState.APPLIED
        ledger = queries.skip_ledger(session, run=run)
        assert [(entry.skip_from, entry.skip_to) for entry in ledger] == [(75, 300)]
        assert queries.orders(session, run=run, open_only=True) == []


def test_a_deleted_run_leaves_nothing_behind(engine: sa.Engine) -> None:
    """Besides the files of archived steps, which are known until they are removed (tests/db/archive)."""
    tables = [table for table in Base.metadata.sorted_tables if table.name != "archived_files"]
    of_runs = [table for table in tables if table.name == "runs" or "run_pk" in table.columns]
    with writing(engine) as session:
        run = add_run(session)
        segment = add_segment(session, run, "a")
        for steps in (range(600), range(600, 620)):  # a block, and rows
            add_steps(session, run, segment, steps)
        order = proposed_order(session, run)
        answer: dict[str, Any] = {"rewound_to": 0, "skip_from": 0, "skip_to": 9, "detail": ""}
        commands.answer_order(session, order=order, state=OrderState.APPLIED, now=NOW, **answer)
        commands.add_event(session, run=run, key="a", segment=0, step=3, time=NOW, kind="note", details={})
        facts = {"kind": "loss_spike", "state": "open", "signal": "loss", "onset_step": 3, "detected_step": 4}
        commands.save_incident(session, run=run, number=1, segment=0, now=NOW, details={}, **facts)
        commands.save_detection_state(session, run=run, state={"x": 1})
        commands.run_status_of(session, run=run, now=NOW)
        commands.save_snapshot(session, run=run, segment=0, step=4, state={"x": 1})
        mlflow.create_run(session, run=run, experiment=0, user="", tags={})
        preflights.save_answer(session, run=run, intervention=1, answer={}, now=NOW)
        policies.set_fields(session, key=policies.run_key(run.id), fields={}, who="", now=NOW, run=run)
        sample = {"time": NOW, "step": 3, "host": "h", "device": "gpu0", "values": {"power": 1.0}}
        hardware.add_samples(session, run=run, samples=[sample])
        arms.save(session, run=run, incident=1, intervention=1, arms={"wait": {}})
        step_notes.add_step_note(session, run=run, step=3, text="a note", author="me", now=NOW)
        assert [table.name for table in of_runs if _rows(session, table) == 0] == [], "give these a row, to see it go"
        commands.delete_run(session, run=run)
    with reading(engine) as session:
        assert [table.name for table in Base.metadata.sorted_tables if _rows(session, table)] == OF_THE_STORE


def _rows(session: Session, table: sa.Table) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_only_the_newest_snapshots_are_kept_and_only_live_ones_found(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_run(session)
        first = add_segment(session, run, "a")
        add_steps(session, run, first, range(300))
        for step in range(commands.MAX_SNAPSHOTS + 5):
            commands.save_snapshot(session, run=run, segment=0, step=step, state={"step": step})
        add_segment(session, run, "b", fork_step=50)
        assert queries.snapshot_before(session, run=run, step=4) is None
        assert queries.snapshot_before(session, run=run, step=40) == (39, {"step": 39})
        assert queries.snapshot_before(session, run=run, step=500) == (49, {"step": 49})
