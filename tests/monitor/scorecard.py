"""A small stored run with one incident, for the tests of the scorecard's command, route and page."""

from typing import Any

from sqlalchemy.orm import Session

from db import commands
from db.models import Run
from lossguard.vocabulary.states import RunState
from tests.db.seed import NOW, add_run, add_segment, add_steps


def store_run(
    session: Session, run_id: str, *, state: RunState = RunState.FINISHED, end_step: int | None = 30, **values: Any
) -> Run:
    """A run of 200 steps whose loss spiked at step 20, about which the policy would have rolled back.

    `end_step` None: the incident goes on to the end.
    """
    run = add_run(session, run_id, **values)
    add_steps(session, run, add_segment(session, run, "a"), range(200))
    is_over = end_step is not None
    columns: dict[str, Any] = {
        "kind": "loss_spike",
        "state": "closed" if is_over else "open",
        "signal": "loss",
        "onset_step": 20,
    }
    columns |= {"detected_step": 21, "peak_step": 22, "end_step": end_step, "score": 3.0}
    columns |= {"outcome": "recovered" if is_over else "ongoing"}
    numbers = {"peak_value": 5.0, "expected": 2.0, "scale": 0.02, "reasons": []}
    proposal = {"kind": "rollback", "decided_step": 28, "rewind_to": 10, "skip_from": 19, "skip_to": 31}
    details = columns | numbers | {"number": 1, "proposal": proposal}
    commands.save_incident(session, run=run, number=1, segment=0, now=NOW, details=details, **columns)
    commands.finish_run(session, run=run, state=state, at=NOW + 200, now=NOW + 200)
    return run
