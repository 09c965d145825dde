"""A run is registered, locked and finished."""

from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Run
from lossguard.json_values import plain_json
from lossguard.masking import mask_command_line, mask_json
from lossguard.states import RunState
from monitor.problems import too_many_runs, unknown
from monitor.schemas import FinishIn, RunIn


def register(session: Session, spec: RunIn, *, now: float, max_runs: int | None = None) -> tuple[Run, bool]:
    """(the run with this id, whether it is new). Raises Problem 429 when a new run would exceed `max_runs`.

    An SDK that does not mask secrets itself may have sent some.
    """
    values = plain_json(spec.model_dump()) | {"policy": None}
    values |= {"command": mask_command_line(values["command"] or "") or None, "config": mask_json(values["config"])}
    run, is_new = commands.register_run(session, values=values, now=now)
    if is_new and max_runs is not None and queries.num_runs(session) > max_runs:
        raise too_many_runs(max_runs)
    commands.run_status_of(session, run=run, now=now).last_step_at = now
    return run, is_new


def lock(session: Session, run_id: str) -> Run:
    """The run, locked until the transaction ends. Raises Problem 404 when there is no such run."""
    run = commands.lock_run(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    return run


def finish(session: Session, run_id: str, spec: FinishIn, *, now: float) -> Run:
    """The run has ended or was interrupted."""
    run = lock(session, run_id)
    commands.finish_run(session, run=run, state=RunState(spec.state), at=spec.at, now=now)
    return run
