"""Every column is read as what it may hold."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from db import frames, queries
from db.models import UNREADABLE_RULE, Run
from db.store.engine import reading, writing
from lossguard.vocabulary.protocol import MAX_TIME
from tests.db.seed import NOW, add_run, spoil


def test_a_run_of_impossible_values_is_read_as_what_its_columns_may_hold(engine: sa.Engine) -> None:
    with writing(engine) as session:
        add_run(session, "bad")
        add_run(session, "good")
    spoil(engine, "bad")
    with reading(engine) as session:
        runs = {run.id: run for run in queries.runs(session)}
        bad, good = runs["bad"], runs["good"]
        assert (bad.config, bad.versions, bad.devices, bad.capabilities, bad.restorable_steps) == ({}, {}, [], [], [])
        assert (bad.started_at, bad.last_report_at, bad.finished_at) == (MAX_TIME, 0.0, MAX_TIME)
        assert (good.config, good.devices, good.started_at, good.policy) == ({"lr": 1e-3}, ["cpu"], NOW, None)
        assert list(frames.runs(session).index) == ["bad", "good"]
        assert session.scalar(sa.select(Run.config["lr"].as_float()).where(Run.id == "good")) == 1e-3


DAMAGED = {
    "cut": "'[1, '",
    "a number": "'7'",
    "no UTF-8": "cast(x'5b22ff225d' as text)",
    "bytes": "x'80ff'",
    "deep": f"'{'[' * 5000}'",
    "half a character": """'[1, "\\ud800", {"a": 1}]'""",
    "half a character in capitals": """'[1, "\\uDFFF", {"a": 1}]'""",
}


@pytest.mark.parametrize("value", DAMAGED)
def test_a_damaged_column_is_read_as_what_it_may_hold(sqlite_engine: sa.Engine, value: str) -> None:
    columns = ("config", "devices", "capabilities", "policy", "tags", "restorable_steps", "restorable_tiers")
    with writing(sqlite_engine) as session:
        add_run(session)
    with sqlite_engine.begin() as connection:
        changed = ", ".join(f"{name} = {DAMAGED[value]}" for name in columns)
        connection.exec_driver_sql(f"UPDATE runs SET started_at = 'x', {changed}")
    with reading(sqlite_engine) as session:
        run = session.scalars(sa.select(Run)).one()
        lists: dict[str, list[Any]] = {"half a character": [1, "?", {"a": 1}], "no UTF-8": ["\ufffd"]}
        listed = lists.get(value.removesuffix(" in capitals"), [])
        assert (run.config, run.policy, run.started_at, run.devices) == ({}, UNREADABLE_RULE, 0.0, listed)
        assert run.capabilities == run.tags == [each for each in listed if isinstance(each, str)]
        assert run.restorable_steps == [each for each in listed if isinstance(each, int)]
        assert run.restorable_tiers == [each for each in listed if isinstance(each, dict)]
        assert json.dumps(run.devices, ensure_ascii=False).encode()
