"""The columns of a step follow from the metric registry."""

import sqlalchemy as sa

from db.models import Step
from lossguard.metrics import COLUMNS, ColumnType


def test_every_metric_with_a_column_is_a_nullable_column_of_its_type() -> None:
    types = {ColumnType.FLOAT: sa.Float, ColumnType.COUNT: sa.BigInteger}
    for name, kind in COLUMNS.items():
        column = Step.__table__.columns[name]
        assert isinstance(column.type, types[kind]), name
        assert column.nullable, name


def test_a_step_has_no_other_columns_than_these_and_its_own() -> None:
    own = {"run_pk", "segment", "step", "time", "extra", "non_finite"}
    assert set(Step.__table__.columns.keys()) == own | set(COLUMNS)
