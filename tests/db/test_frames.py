"""Frames hold what was reported, with the same dtypes however much there is of it."""

import math

import pandas as pd
import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from db import frames, queries
from db.lineage import Line
from db.models import Run
from db.records import hardware
from db.steps import writer
from db.store.engine import reading, writing
from tests.db.seed import NOW, add_incident_records, add_run, add_segment, add_steps, before_statement

TIME = "datetime64[us, UTC]"


def test_a_frame_distinguishes_a_reported_nan_from_an_absent_value(session: Session, run: Run) -> None:
    segment = add_segment(session, run, "a")
    add_steps(session, run, segment, range(3), loss=[1.0, math.nan, None], **{"eval/loss": [None, math.inf, 2.0]})
    frame = frames.steps(session, run=run)
    assert frame.index.tolist() == [0, 1, 2]
    assert frame["loss"].isna().tolist() == [False, True, True]
    assert frame["loss_non_finite"].isna().tolist() == [True, False, True]
    assert frame["eval/loss"].tolist()[1:] == [math.inf, 2.0]
    assert frame["loss"].dtype == "float64"


def test_a_step_that_arrives_while_a_frame_is_read_is_in_none_of_its_columns(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as session:
        run = add_run(session)
        add_steps(session, run, add_segment(session, run, "a"), [0, 1, 3], loss=[1.0] * 3, **{"eval/loss": [2.0] * 3})

    def arrive() -> None:
        with writing(sqlite_engine) as other:
            here = queries.runs(other)[0]
            (segment,) = queries.segments(other, run=here)
            add_steps(other, here, segment, [2], loss=[1.0], **{"eval/loss": [2.0]})

    before_statement(sqlite_engine, "AS TEXT", arrive)
    with reading(sqlite_engine) as session:
        frame = frames.steps(session, run=queries.runs(session)[0])
    assert frame.index.tolist() == [0, 1, 3]
    assert frame["eval/loss"].tolist() == [2.0] * 3


def test_the_overlap_keeps_both_and_marks_which_is_live(session: Session, run: Run) -> None:
    add_steps(session, run, add_segment(session, run, "a"), range(150), loss=[1.0] * 150)
    add_steps(session, run, add_segment(session, run, "b", fork_step=100), range(100, 200), loss=[2.0] * 100)
    whole, live, left, first = (
        frames.steps(session, run=run, metrics=["loss"], line=line) for line in (Line.ALL, Line.LIVE, Line.DISCARDED, 0)
    )
    table = frames.segments(session, run=run)
    assert (len(whole), whole["live"].tolist().count(True)) == (250, 200)
    assert live.loss.tolist() == [1.0] * 100 + [2.0] * 100
    assert live.equals(whole[whole.live])
    assert left.equals(whole[~whole.live])
    assert (left.index.tolist(), set(left.loss)) == (list(range(100, 150)), {1.0})
    assert first.live.tolist() == [True] * 100 + [False] * 50
    assert table[["parent", "live_from", "live_to"]].values.tolist() == [[pd.NA, 0, 100], [0, 100, pd.NA]]


def test_dtypes_do_not_depend_on_the_rows(session: Session) -> None:
    empty = add_run(session, "empty")
    full = add_run(session, "full")
    add_steps(session, full, add_segment(session, full, "a"), range(4), loss=[1.0] * 4)
    add_incident_records(session, full, {"why": "so"})
    for make in (frames.steps, frames.incidents, frames.interventions, frames.segments, frames.events):
        one, other = make(session, run=empty), make(session, run=full)
        assert one.empty
        assert len(other) > 0
        assert one.dtypes.to_dict() == {name: other.dtypes[name] for name in one.columns}, make
    found = frames.incidents(session, run=full)
    every = frames.runs(session)
    assert found.dtypes[["onset_step", "end_step", "opened_at", "kind"]].tolist() == ["int64", "Int64", TIME, "str"]
    assert every[["steps_consumed", "steps_effective"]].to_dict("index")["full"] == {
        "steps_consumed": 4,
        "steps_effective": 4,
    }
    assert every.dtypes["finished_at"] == TIME


def test_every_second_of_a_run_has_a_cause(session: Session, run: Run) -> None:
    add_steps(session, run, add_segment(session, run, "a"), range(1, 101))
    frame = frames.goodput(session, run=run, now=NOW + 101)
    empty = frames.goodput(session, run=run, now=NOW)
    assert frame.index.name == "cause"
    assert (frame.seconds["training"], frame.seconds.sum(), frame["share"].sum()) == (101.0, 101.0, 1.0)
    assert empty.seconds.sum() == 0.0
    assert empty["share"].isna().all()
    assert empty.dtypes.tolist() == frame.dtypes.tolist() == ["float64", "float64"]


def test_an_intervention_shows_where_the_trainer_really_went(session: Session, run: Run) -> None:
    add_incident_records(session, run, {})
    (done,) = frames.interventions(session, run=run).itertuples()
    assert (done.Index, done.state, done.order_state, done.rewound_to) == (1, "verified", "applied", 2)
    assert done.answered_at == pd.Timestamp(NOW, unit="s", tz="UTC")


def test_many_runs_are_one_frame(session: Session) -> None:
    for number in range(3):
        run = add_run(session, f"r{number}")
        add_steps(session, run, add_segment(session, run, "a"), range(5), loss=[float(number)] * 5)
        add_incident_records(session, run, {})
    several = queries.runs(session)
    losses = frames.together(frames.steps, session, runs=several, metrics=["loss"])
    found = frames.together(frames.incidents, session, runs=several)
    assert frames.together(frames.steps, session, runs=[]).empty
    assert losses.loss.groupby("run").mean().to_dict() == {"r0": 0.0, "r1": 1.0, "r2": 2.0}
    assert found.index.tolist() == [("r2", 1), ("r1", 1), ("r0", 1)]


def test_times_far_ahead_are_times(session: Session) -> None:
    run = add_run(session, started_at=9e10)  # the clock of a host may say so
    assert frames.runs(session).started_at["r1"].year == 4821
    assert frames.steps(session, run=run, metrics=["loss"]).dtypes["time"] == TIME


numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)


def test_times_that_no_calendar_has_are_missing(session: Session) -> None:
    run = add_run(session, started_at=1e300)
    segment = add_segment(session, run, "a")
    writer.insert_steps(
        session, segment=segment, steps=[0, 1, 2], times=[1e300, -1e300, NOW], metrics={"loss": [1.0] * 3}
    )
    assert frames.steps(session, run=run)["time"].isna().tolist() == [True, True, False]
    assert frames.runs(session)["started_at"].dt.year.tolist() == [5138]  # read as the latest that a report may have


def test_the_frame_of_the_hardware_has_a_column_for_each_value(session: Session, run: Run) -> None:
    named = {"host": "h", "step": None}
    samples = [
        {"time": NOW, "device": "gpu0", "values": {"xid_code": 79.0, "power": 600.0}} | named,
        {"time": NOW + 15, "device": "machine", "values": {"memory": 0.5}} | named,
    ]
    hardware.add_samples(session, run=run, samples=samples)
    frame = frames.hardware(session, run=run)
    assert list(frame.columns) == ["time", "step", "host", "device", "power", "memory", "xid_code"]
    assert frame["power"].isna().tolist() == [False, True]
    assert str(frame["step"].dtype) == "Int64"
