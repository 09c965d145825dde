"""Every value of a metric of a run that an MLflow client logs, from the stored steps and the open rows."""

from sqlalchemy.orm import Session

from db import queries
from db.lineage import StepRange
from db.models import MlflowRun, Run
from db.steps.reader import read_blocks
from monitor.ingestion.logged_run import LoggedMetric, LoggedRun


def values(session: Session, run: Run, logged: MlflowRun, *, key: str) -> list[LoggedMetric]:
    """In the order of the segments and steps; nothing for a key that was not logged."""
    known = LoggedRun.from_json(logged.state)
    latest = known.latest.get(key)
    if latest is None:
        return []
    name = known.name_of(key)
    found: list[LoggedMetric] = []
    for segment in queries.segments(session, run=run):
        steps = StepRange(segment.number, 0, None)
        for block in read_blocks(session, run_pk=run.pk, step_range=steps, metrics=[name]):
            column = block.metrics[name]
            cells = [part[column.reported].tolist() for part in (column.values, block.times, block.steps)]
            found += [
                LoggedMetric(key, value, round(time * 1000), step) for value, time, step in zip(*cells, strict=True)
            ]
    for row in known.rows.rows.values():
        if name in row.values:
            found.append(LoggedMetric(key, row.values[name], round(row.time * 1000), row.step))
    if found and found[-1].step == latest.step:
        found[-1] = latest
    return found
