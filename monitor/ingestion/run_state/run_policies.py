"""The policy of a run, as its layers say it: when it registers, and whenever its detection is loaded."""

import logging
import zlib
from typing import Any

from sqlalchemy.orm import Session

from db import commands, queries
from db.models import Run
from db.records import access, policies
from lossguard.vocabulary.states import Layer
from monitor.detection import Mode, Policy
from monitor.detection.interventions import run_policy
from monitor.detection.interventions.run_policy import Fields, Layers

log = logging.getLogger(__name__)

UNREADABLE = "policy_unreadable"
"""Kind of the event that says that the run keeps its last policy."""


def rule_of(session: Session, run: Run) -> dict[str, Any] | None:
    """The rule that the layers make now. Where this release cannot read them, the log and an event say so."""
    layers = policies.layers(session, project=run.project, run_id=run.id)
    try:
        if layers:
            return run_policy.rule_of(layers)
        run_policy.read(run.policy)  # none, or that of an imported run
        return run.policy
    except (TypeError, ValueError) as error:
        kept = readable_rule(layers, run.policy) if layers else run.policy
        mode = run_policy.policy_of(kept).mode
        number, key = queries.num_segments(session, run=run) - 1, f"{UNREADABLE}-{zlib.crc32(str(error).encode())}"
        values: dict[str, Any] = {"segment": max(0, number), "step": None, "time": run.last_report_at}
        details = {"why": str(error), "mode": mode}
        if commands.add_event(session, run=run, key=key, kind=UNREADABLE, details=details, **values):
            log.warning("the policy of run %s cannot be read (%s): it goes on with mode %s", run.id, error, mode)
        return kept


def readable_rule(layers: Layers, last: Fields | None = None) -> dict[str, Any] | None:
    """The rule of the layers. Where this release cannot read them, the last valid one; that of `observe` without one,
    because a collector must not act by guess."""
    try:
        return run_policy.rule_of(layers)
    except (TypeError, ValueError):
        return Policy(mode=Mode.OBSERVE).to_dict() if last is None else dict(last)


def num_unreadable(session: Session) -> int:
    """Running runs whose policy layers cannot be read: they go on with the last valid policy, or observe."""
    collector = policies.layers(session).get(Layer.COLLECTOR, {})
    of_projects = policies.projects(session)
    known: dict[str, bool] = {}  # many runs have the same layers
    count = 0
    for _, project, own in policies.running(session):
        key = f"{project} {own}"
        if key not in known:
            layers = {Layer.COLLECTOR: collector, Layer.PROJECT: of_projects.get(project, {}), Layer.RUN: own}
            try:
                run_policy.rule_of(layers)
                known[key] = True
            except (TypeError, ValueError):
                known[key] = False
        count += not known[key]
    return count


def begin(session: Session, run: Run, given: Fields | None, *, is_new: bool, who: str, now: float) -> str | None:
    """Take what the loop says of the policy (`lossguard.init(policy=..)`) as the run's own, until an operator sets it.

    A malformed policy is not taken, and the run observes: returns a sentence that says why.
    """
    layers = policies.layers(session, project=run.project, run_id=run.id)
    if not is_new and (given is None or policies.is_set_by_operator(session, run=run)):
        return None
    problem, own = None, {}
    try:
        first = run_policy.of_first_run(layers.get(Layer.COLLECTOR, {}))
        is_first = bool(first) and policies.is_first_of_project(session, run=run)
        own = run_policy.changed(first if is_first else {}, given or {})
        run_policy.check({**layers, Layer.RUN: own})
    except (TypeError, ValueError) as error:
        problem, own = str(error), {"mode": Mode.OBSERVE.value}
    if own != layers.get(Layer.RUN, {}):
        key = policies.run_key(run.id)
        policies.set_fields(session, key=key, fields=own, who=who, now=now, run=run, by_operator=False)
        access.record(session, who=who, action="policy", run=run.id, details=own, now=now)
    if is_new:  # a known run follows its layers when its detection is next loaded
        run.policy = readable_rule({**layers, Layer.RUN: own})
    return problem
