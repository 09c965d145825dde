"""Every column of an imported run has a rule, and no rule refuses what the store holds."""

import math
from typing import Any

import pytest
import sqlalchemy as sa

from db import queries
from db.files import record
from db.files.rules import OF_COLUMN, check_row, rule_of
from db.models import DetectionState, Intervention, Order, Run
from db.store.engine import writing
from tests.db.files.exported import add_forked_run

MODELS = [Run, DetectionState, *record.PARTS.values()]
HOSTILE: list[Any] = [math.nan, math.inf, 10**400, -(2**70), "\x00", "\ud800", object()]


def test_every_rule_is_of_a_column_that_exists() -> None:
    for model, name in OF_COLUMN:
        assert name in model.__table__.columns


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_no_column_takes_what_no_store_could_hold(model: Any) -> None:
    for name in (column.key for column in model.__table__.columns):
        for value in HOSTILE:
            assert not rule_of(model, name).fits(value), (name, value)
            assert not rule_of(model, name).fits([value]), (name, value)


def test_what_the_store_holds_fits(engine: sa.Engine) -> None:
    with writing(engine) as session:
        run = add_forked_run(session, [(0, {"loss": [1.0] * 4}), (2, {"loss": [math.nan] * 4})], {"a": [1.5, None, {}]})
        described = record.describe(session, run=run)
        assert len(queries.incidents(session, run=run)) == 1
    for name, model in record.PARTS.items():
        for row in described[name]:
            check_row(model, row, name, list(row))
    check_row(Run, described["run"], "run", list(described["run"]))


@pytest.mark.parametrize("model", [Intervention, Order])
def test_remedies_are_names_of_remedies(model: Any) -> None:
    rule = rule_of(model, "remedies")
    assert [rule.fits(value) for value in (["clip"], [], ["**clip**"], ["a"] * 1025)] == [True, True, False, False]
