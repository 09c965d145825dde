"""Stored runs as pandas frames, for analysis: one function for each kind of row, and `together` for many runs.

Dtypes do not depend on the rows: whole numbers are int64, or Int64 where some may be missing; other numbers float64;
times datetime64[us, UTC]; texts str; JSON (details, config) object.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.goodput import reading
from db.goodput.accounting import TimeCause
from db.lineage import Line, StepRange, live_line, step_ranges
from db.models import INNER_COLUMNS, Base, Event, Incident, Intervention, Order, Run, Segment, UnixTime
from db.records.hardware import samples
from db.steps.reader import read_blocks
from db.steps.step_block import MetricColumn, StepBlock, column_of
from lossguard.client.pandas_frames import cells, step_frame, to_times
from lossguard.client.tables import ColumnType
from lossguard.vocabulary.hardware import BY_NAME as VALUES_BY_NAME
from lossguard.vocabulary.protocol import PROBE


def steps(
    session: Session, *, run: Run, metrics: Sequence[str] | None = None, line: Line | int = Line.LIVE
) -> pd.DataFrame:
    """The steps of a run, one row per step: index `step`, `segment`, `live`, `time`, then a float64 column per metric.

    `metrics`: by default all. NaN stands for a reported NaN and for a value that was not reported; a metric with values
    that were not finite has a second column, `<metric>_non_finite` ("NaN", "Infinity", "-Infinity", else missing),
    which tells the two apart.

    `line` is the live line, the discarded steps, both (segment by segment; `live` says which are on the live line), or
    the number of one segment. A metric that is called like one of the frame's own columns is `metric.<name>`.
    """
    names = queries.metric_names(session, run=run) if metrics is None else list(metrics)
    tree = queries.segments(session, run=run)
    blocks = [
        block
        for step_range in step_ranges(tree, line)
        for block in read_blocks(session, run_pk=run.pk, step_range=step_range, metrics=names)
    ]
    own = {
        "step": _joined([block.steps for block in blocks], np.int64),
        "segment": _joined([np.full(len(block), block.segment) for block in blocks], np.int64),
        "live": is_live(blocks, live_line(tree)),
        "time": _joined([block.times for block in blocks], np.float64),
    }
    joined = {name: MetricColumn.joined([block.metrics[name] for block in blocks]) for name in names}
    return step_frame(own, {column_of(name): (metric.values, metric.reported) for name, metric in joined.items()})


def is_live(blocks: Sequence[StepBlock], line: Sequence[StepRange]) -> Any:
    """bool[N]: whether each step is on the live line."""
    ranges = {step_range.segment: step_range for step_range in line}
    return _joined([block.within(ranges.get(block.segment)) for block in blocks], np.bool_)


def _joined(parts: Sequence[Any], kind: Any) -> Any:
    return np.concatenate([np.empty(0, dtype=kind), *parts])


def together(make: Callable[..., pd.DataFrame], session: Session, *, runs: Sequence[Run], **more: Any) -> pd.DataFrame:
    """`make` (steps, incidents, ...) for many runs in one frame; the run's id is the first level of the index."""
    frames = {run.id: make(session, run=run, **more) for run in runs}
    return pd.concat(frames, names=["run"]) if frames else pd.DataFrame()


def incidents(session: Session, *, run: Run) -> pd.DataFrame:
    """One row per incident, `number` as index."""
    return _table(session, sa.select(*_columns(Incident)).where(Incident.run_pk == run.pk).order_by(Incident.number))


def interventions(session: Session, *, run: Run) -> pd.DataFrame:
    """One row per intervention, `number` as index, with the state of its order, and the step that was gone back to."""
    same = sa.and_(Order.run_pk == Intervention.run_pk, Order.intervention == Intervention.number)
    found = sa.select(
        *_columns(Intervention), Order.state.label("order_state"), Order.rewound_to, Order.answered_at
    ).select_from(sa.outerjoin(Intervention, Order, same))
    return _table(session, found.where(Intervention.run_pk == run.pk).order_by(Intervention.number))


def hardware(session: Session, *, run: Run) -> pd.DataFrame:
    """One row per sample of a device, oldest first; the values are columns, in the order of `hardware.values`."""
    found = samples(session, run=run)
    reported = {name for sample in found for name in sample.readings}
    known = [name for name in VALUES_BY_NAME if name in reported]
    columns: dict[str, Any] = {
        "time": to_times(np.array([sample.time for sample in found], dtype=np.float64)),
        "step": pd.array([sample.step for sample in found], dtype="Int64"),
        "host": pd.array([sample.host for sample in found], dtype="str"),
        "device": pd.array([sample.device for sample in found], dtype="str"),
    }
    for name in [*known, *sorted(reported - set(known))]:
        columns[name] = np.array([sample.readings.get(name, np.nan) for sample in found], dtype=np.float64)
    return pd.DataFrame(columns)


def segments(session: Session, *, run: Run) -> pd.DataFrame:
    """One row per segment, `number` as index; its steps [live_from, live_to) are live (both missing if none is)."""
    frame = _table(session, sa.select(*_columns(Segment)).where(Segment.run_pk == run.pk).order_by(Segment.number))
    line = {step_range.segment: step_range for step_range in queries.live(session, run=run)}
    parts = [line.get(number) for number in frame.index]
    frame["live_from"] = pd.array([None if part is None else part.first for part in parts], dtype="Int64")
    frame["live_to"] = pd.array([None if part is None else part.last for part in parts], dtype="Int64")
    return frame


def events(session: Session, *, run: Run) -> pd.DataFrame:
    """One row per declared event and per outlier, in the order of arrival; `key` as index. Probes are left out."""
    found = sa.select(*_columns(Event)).where(Event.run_pk == run.pk, Event.kind != PROBE)
    return _table(session, found.order_by(Event.id), "key")


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
    """Next-token distributions, in nats, of all prompts or of one; by step, the likeliest token first.

    The last row of a probe has no `token`: it stands for `count` tokens that the probe does not name. `count` is 1 in
    all other rows. `live` says whether the step is on the live line.
    """
    rows: list[tuple[object, ...]] = []
    for stored in queries.probes(session, run=run, prompt=prompt):
        probe = stored.probe
        where = (run.id, stored.segment, stored.step, stored.live, probe.prompt, probe.target)
        rows += [(*where, token, 1, value) for token, value in zip(probe.tokens, probe.log_probabilities, strict=True)]
        if probe.rest_count:
            rows.append((*where, None, probe.rest_count, probe.rest_log_probability))
    return pd.DataFrame.from_records(rows, columns=list(PROBE_COLUMNS)).astype(PROBE_COLUMNS)


def goodput(session: Session, *, run: Run, now: float | None = None) -> pd.DataFrame:
    """Return the time of a run by cause (see `db.goodput.accounting.TimeCause`): every second since its start once.

    `now`: until when, of a run that has not ended, in unix seconds (default: the time by the clock). `share` is missing
    while no time has passed.
    """
    found = reading.breakdown(session, run=run, now=time.time() if now is None else now)
    shares = [found.share(cause) for cause in TimeCause]
    columns = {
        "seconds": np.array([found.seconds[cause] for cause in TimeCause], dtype=np.float64),
        "share": np.array(shares, dtype=np.float64),
    }
    return pd.DataFrame(columns, index=pd.Index([cause.value for cause in TimeCause], dtype="str", name="cause"))


def runs(session: Session, *, project: str | None = None) -> pd.DataFrame:
    """One row per run, the newest first, `id` as index, with its steps: consumed (all) and effective (live line)."""
    found = sa.select(*_columns(Run)).order_by(Run.started_at.desc(), Run.pk.desc())
    frame = _table(session, found if project is None else found.where(Run.project == project), "id")
    counts = [queries.step_counts(session, run=run) for run in queries.runs(session, project=project)]
    frame["steps_consumed"] = np.array([count.consumed for count in counts], dtype=np.int64)
    frame["steps_effective"] = np.array([count.effective for count in counts], dtype=np.int64)
    return frame


def _columns(model: type[Base]) -> list[sa.ColumnElement[Any]]:
    """The columns of a table without the keys that only the store needs."""
    inner = {"run_pk", "pk", "revision"} if model is Run else {"run_pk", "id", *INNER_COLUMNS}
    return [column for column in model.__table__.columns if column.key not in inner]


def _table(session: Session, found: sa.Select[Any], index: str = "number") -> pd.DataFrame:
    rows = session.execute(found).all()
    by_column = list(zip(*rows, strict=True)) or [()] * len(found.selected_columns)
    columns: Mapping[str, Any] = {
        column.key: cells(_kind(column), list(values))
        for column, values in zip(found.selected_columns, by_column, strict=True)
        if column.key is not None
    }
    return pd.DataFrame(columns).set_index(index)


def _kind(column: Any) -> ColumnType:
    if isinstance(column.type, UnixTime):
        return ColumnType.TIME
    if isinstance(column.type, sa.Float):
        return ColumnType.NUMBER
    if isinstance(column.type, sa.Integer):
        known = isinstance(column, sa.Column) and not column.nullable and column.key != "rewound_to"
        return ColumnType.INTEGER if known else ColumnType.OPTIONAL_INTEGER
    return ColumnType.TEXT if isinstance(column.type, sa.String) else ColumnType.JSON
