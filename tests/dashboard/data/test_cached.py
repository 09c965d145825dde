"""What the pages have read stays as long as it is true."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from dashboard.axes import XAxis
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.figures.curves import ChartOptions, run_figure
from dashboard.figures.marks import Marks
from db import queries
from db.models import Run, Segment
from db.store.engine import reading, writing
from lossguard.vocabulary.protocol import NO_HEARTBEAT
from tests.dashboard.facts import facts_of
from tests.dashboard.seed import save_incident, stored
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")


def read(engine: sa.Engine, run: Run) -> list[tuple[int, str]]:
    with reading(engine) as session:
        found = cached.changed_rows(session, run, queries.incidents)
        return [(each.number, each.state) for each in found]


def test_a_later_read_has_new_and_changed_incidents_beside_the_old_ones(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "r1")
        save_incident(session, run, 1, state="closed")
        save_incident(session, run, 2)
    assert read(store, run) == [(1, "closed"), (2, "open")]
    with writing(store) as session:
        save_incident(session, run, 2, now=time.time(), state="closed")
        save_incident(session, run, 3, now=time.time())
    assert read(store, run) == [(1, "closed"), (2, "closed"), (3, "open")]


def test_a_run_that_was_deleted_leaves_nothing_to_the_next_one_of_its_name(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "r1")
        save_incident(session, run)
    assert read(store, run) == [(1, "open")]
    with writing(store) as session:
        session.execute(sa.delete(Run))
    with writing(store) as session:
        again = add_run(session, "r1", started_at=time.time())
    assert again.pk == run.pk
    assert read(store, again) == []


def reported(store: sa.Engine, loss: list[float], started_at: float = 0.0) -> RunFacts:
    """Facts of a run that has reported these losses."""
    with writing(store) as session:
        run = add_run(session, "r1", started_at=started_at)
        add_steps(session, run, add_segment(session, run, "a"), range(len(loss)), loss=loss)
    with reading(store) as session:
        return facts_of(run, segments=queries.segments(session, run=run))


@pytest.mark.parametrize(
    ("read", "others"),
    [
        (cached.curves, [{"x_axis": XAxis.TOKENS}, {"window": (0, 1)}, {"discarded": False}, {"metrics": ["lr"]}]),
        (
            cached.line_curves,
            [{"x_axis": XAxis.TOKENS}, {"window": (0, 1)}, {"points": 2}, {"metrics": ["lr"]}, {"segment": None}],
        ),
    ],
)
def test_curves_are_read_once_for_all_who_ask_the_same(
    store: sa.Engine, read: Callable[..., object], others: list[dict[str, Any]]
) -> None:
    facts = reported(store, [3.0, 2.0, 1.0])
    asked = {"metrics": ["loss"]} | ({"segment": 0} if read is cached.line_curves else {})
    first = read(facts, **asked)
    assert read(facts, **asked) is first
    assert [more for more in others if read(facts, **(asked | more)) is first] == []


def test_curves_grow_with_the_run(store: sa.Engine) -> None:
    facts = reported(store, [3.0, 2.0])
    assert cached.curves(facts, ["loss"]).by_metric["loss"].live.last == [3.0, 2.0]
    with writing(store) as session:
        run = stored(session, "r1")
        (segment,) = queries.segments(session, run=run)
        add_steps(session, run, segment, range(2, 3), loss=[1.0])
    assert cached.curves(replace(facts, segments=[segment]), ["loss"]).by_metric["loss"].live.last == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("x_axis", [XAxis.TIME, XAxis.TOKENS])
def test_a_discarded_branch_without_the_metric_of_the_axis_is_placed_beside_the_live_line(
    store: sa.Engine, x_axis: XAxis
) -> None:
    with writing(store) as session:
        run = add_run(session, "r1")
        now_and_then = [1e6 if step in (0, 10) else None for step in range(20)]
        for key, steps, rare in (("a", range(20), now_and_then), ("b", range(15, 30), [2e6] * 15)):
            segment = add_segment(session, run, key, steps[0])
            add_steps(session, run, segment, steps, grad_norm=[1.0] * len(steps), loss=rare, tokens=rare)
        facts = facts_of(run, segments=queries.segments(session, run=run))
    found = cached.curves(facts, ["grad_norm"], x_axis=x_axis)
    drawn = run_figure(found.by_metric, Marks(), found.run_axes, ChartOptions(x_axis=x_axis)).data
    assert {trace.name for trace in drawn} >= {"live line", "discarded branch"}
    assert min(min(trace.x) for trace in drawn) >= 1e6


def test_a_run_that_was_deleted_leaves_no_curves_to_the_next_one_of_its_name(store: sa.Engine) -> None:
    assert cached.curves(reported(store, [3.0, 2.0]), ["loss"]).by_metric["loss"].live.last == [3.0, 2.0]
    with writing(store) as session:
        session.execute(sa.delete(Run))
    again = reported(store, [5.0, 4.0], started_at=9.0)
    assert cached.curves(again, ["loss"]).by_metric["loss"].live.last == [5.0, 4.0]


def test_the_rewinds_of_an_mlflow_run_are_read_again_for_a_new_segment_and_not_for_new_steps(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    monkeypatch.setattr(cached, "read_rewinds", lambda *_, segments, **__: reads.append(len(segments)))
    first, facts = Segment(number=0, num_steps=9), reported(store, [3.0, 2.0])
    facts.run.capabilities = [NO_HEARTBEAT]
    for revision, counts in enumerate([[0], [5], [6], [6, 0], [6, 1], [6, 2]]):
        facts.run.revision = revision
        segments = [first, *(Segment(number=number, num_steps=steps) for number, steps in enumerate(counts, 1))]
        cached.rewinds(replace(facts, segments=segments))
    assert reads == [2, 2, 3, 3]
