"""Series by reading every value, and reports of a metric."""

import math
from collections.abc import Sequence

import sqlalchemy as sa

from db.models import Run
from db.steps.series import Series
from tests.db.seed import add_segment, add_steps

Value = float | None


def plain_loop(values: dict[int, Value], first: int, last: int, width: int) -> Series:
    """The same answer by reading every value."""
    result = Series()
    buckets: dict[int, dict[int, float]] = {}
    for step in sorted(values):
        value = values[step]
        if first <= step <= last and value is not None:
            buckets.setdefault(step // width, {})[step] = value
    for bucket in buckets.values():
        finite = [value for value in bucket.values() if math.isfinite(value)]
        result.first_step.append(min(bucket))
        result.last_step.append(max(bucket))
        result.count.append(len(finite))
        result.non_finite.append(len(bucket) - len(finite))
        result.min.append(min(finite) if finite else None)
        result.max.append(max(finite) if finite else None)
        result.mean.append(math.fsum(finite) / len(finite) if finite else None)
        result.first.append(finite[0] if finite else None)
        result.last.append(finite[-1] if finite else None)
    return result


def assert_same(found: Series, wanted: Series) -> None:
    for name in ("first_step", "last_step", "count", "non_finite", "min", "max", "first", "last"):
        assert getattr(found, name) == getattr(wanted, name), name
    for mean, exact in zip(found.mean, wanted.mean, strict=True):
        assert (mean is None) == (exact is None)
        assert mean is None or exact is None or math.isclose(mean, exact, rel_tol=1e-9, abs_tol=1e-9)


def report(session: sa.orm.Session, run: Run, values: dict[int, Value], steps: Sequence[int], name: str) -> None:
    steps = sorted(steps)
    columns: dict[str, list[Value]] = {name: [values[step] for step in steps], "lr": [0.1] * len(steps)}
    add_steps(session, run, add_segment(session, run, "a"), steps, **columns)
