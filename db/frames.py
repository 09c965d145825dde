"""Stored runs as pandas frames, for analysis afterwards.

steps(...)          index `step` (int64), `segment` (int64), `time` (datetime64, UTC), then one float64 column a metric.
                    NaN stands for a reported NaN and for an absent value; where a metric has values that were not
                    finite, a column `<metric>_non_finite` tells the two apart.
incidents(...)      one row per incident, `number` as index
interventions(...)  one row per intervention, `number` as index, with what the trainer really did
segments(...)       one row per segment, `number` as index, with its part of the live line
probes(...)         one row per token of a probe; what a probe does not name is one row more, without a token
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.lineage import Stretch
from db.models import Incident, Intervention, Order, Run, Step
from db.step_rows import metric_column, non_finite_text
from lossguard.protocol import NON_FINITE


def steps(
    session: Session, *, run: Run, metrics: Sequence[str] | None = None, segment: int | None = None
) -> pd.DataFrame:
    """The live line of a run, or one whole segment of it, with these metrics (all that it has by default)."""
    names = queries.metric_names(session, run=run) if metrics is None else list(metrics)
    stretches = queries.live(session, run=run) if segment is None else [Stretch(segment, 0, None)]
    parts = [_stretch_frame(session, run, stretch, names) for stretch in stretches]
    frame = pd.concat(parts, ignore_index=True) if parts else _frame([], names)
    frame["time"] = pd.to_datetime(frame["time"], unit="s", utc=True)
    for name in names:
        _restore_non_finite(frame, name)
    return frame.set_index("step")


def _stretch_frame(session: Session, run: Run, stretch: Stretch, names: list[str]) -> pd.DataFrame:
    columns = [column for name in names for column in (metric_column(name), non_finite_text(name))]
    found = sa.select(Step.step, Step.segment, Step.time, *columns).where(
        Step.run_pk == run.pk, Step.segment == stretch.segment, Step.step >= stretch.first
    )
    if stretch.last is not None:
        found = found.where(Step.step < stretch.last)
    return _frame([tuple(row) for row in session.execute(found.order_by(Step.step))], names)


def _frame(rows: list[tuple[object, ...]], names: list[str]) -> pd.DataFrame:
    header = ["step", "segment", "time"] + [column for name in names for column in (name, f"{name}_non_finite")]
    frame = pd.DataFrame.from_records(rows, columns=header)
    kinds = {"step": "int64", "segment": "int64", "time": "float64"} | dict.fromkeys(names, "float64")
    return frame.astype(kinds)


def _restore_non_finite(frame: pd.DataFrame, name: str) -> None:
    marks = frame[f"{name}_non_finite"]
    if marks.isna().all():
        del frame[f"{name}_non_finite"]
        return
    for text, value in NON_FINITE.items():
        frame.loc[marks == text, name] = value


def incidents(session: Session, *, run: Run) -> pd.DataFrame:
    """One row per incident."""
    skip = {"run_pk", "id"}
    return _table(session, sa.select(*_columns(Incident, skip)).where(Incident.run_pk == run.pk))


def interventions(session: Session, *, run: Run) -> pd.DataFrame:
    """One row per intervention, with the order that carried it."""
    joined = sa.outerjoin(
        Intervention,
        Order,
        sa.and_(Order.run_pk == Intervention.run_pk, Order.intervention == Intervention.number),
    )
    found = sa.select(
        *_columns(Intervention, {"run_pk", "id"}),
        Order.state.label("order_state"),
        Order.rewound_to,
        Order.answered_at,
    ).select_from(joined)
    return _table(session, found.where(Intervention.run_pk == run.pk))


def segments(session: Session, *, run: Run) -> pd.DataFrame:
    """One row per segment; `live_from` and `live_to` bound what is on the live line (missing when nothing is)."""
    line = {stretch.segment: stretch for stretch in queries.live(session, run=run)}
    rows = [
        {
            "number": segment.number,
            "parent": segment.parent,
            "fork_step": segment.fork_step,
            "reason": segment.reason,
            "first_step": segment.first_step,
            "last_step": segment.last_step,
            "num_steps": segment.num_steps,
            "live_from": line[segment.number].first if segment.number in line else None,
            "live_to": line[segment.number].last if segment.number in line else None,
        }
        for segment in queries.segments(session, run=run)
    ]
    return pd.DataFrame(rows).set_index("number") if rows else pd.DataFrame(index=pd.Index([], name="number"))


PROBE_COLUMNS = {
    "run": "str",
    "segment": "int64",
    "step": "int64",
    "live": "bool",
    "prompt": "str",
    "target": "str",
    "token": "str",
    "count": "int64",
    "log_probability": "float64",
}


def probes(session: Session, *, run: Run, prompt: str | None = None) -> pd.DataFrame:
    """Next-token distributions, in nats: all prompts or one, by step, the likeliest token first.

    `count` is 1, and in the row of the rest, whose `token` is missing, the number of tokens that it stands for.
    `live` says whether the step is on the live line.
    """
    rows = [row for each in queries.probes(session, run=run, prompt=prompt) for row in _probe_rows(run.id, each)]
    return pd.DataFrame.from_records(rows, columns=list(PROBE_COLUMNS)).astype(PROBE_COLUMNS)


def _probe_rows(run_id: str, stored: queries.StoredProbe) -> list[tuple[object, ...]]:
    probe = stored.probe
    named = [(token, 1, value) for token, value in zip(probe.tokens, probe.log_probabilities, strict=True)]
    rest = [(None, probe.rest_count, probe.rest_log_probability)] if probe.rest_count else []
    where = (run_id, stored.segment, stored.step, stored.live, probe.prompt, probe.target)
    return [(*where, *row) for row in (*named, *rest)]


def _columns(model: type[Incident] | type[Intervention], skip: set[str]) -> list[sa.ColumnElement[Any]]:
    return [column for column in model.__table__.columns if column.key not in skip]


def _table(session: Session, found: sa.Select[Any]) -> pd.DataFrame:
    result = session.execute(found)
    return pd.DataFrame.from_records([tuple(row) for row in result], columns=list(result.keys())).set_index("number")
