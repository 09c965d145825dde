"""The policy where teams want it: values for the collector, for a project and for a run."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import Session

from db import commands
from db.models import UNREADABLE_RULE
from db.records import access, policies
from db.store import bulk
from lossguard.vocabulary.states import Layer, RunState
from monitor.detection.interventions import run_policy
from monitor.detection.interventions.run_policy import DETECTION, Fields, Layers
from monitor.detection.settings import DetectionSettings
from monitor.ingestion import runs
from monitor.ingestion.run_state import detection_state, run_policies
from monitor.problems import Problem

DETECTION_NAMES = frozenset(each.name for each in dataclasses.fields(DetectionSettings))


def set_of_run(session: Session, run_id: str, changes: Fields, *, who: str, now: float) -> dict[str, Any]:
    """Change these values of the run; None removes one, so that the next layer's counts. Returns its whole rule.

    Raises Problem 422 for a bad value, and then changes nothing.
    """
    policies.lock(session, key=policies.ALL)  # before the run: a change of a default locks in this order
    run = runs.lock(session, run_id)
    layers = policies.layers(session, project=run.project, run_id=run.id)
    own = layers.get(Layer.RUN, {}) if layers else run.policy or {}
    fields = _changed(own, changes)
    _check([("", {**layers, Layer.RUN: fields})])
    policies.set_fields(session, key=policies.run_key(run_id), fields=fields, who=who, now=now, run=run)
    access.record(session, who=who, action="policy", run=run.id, details=dict(changes), now=now)
    detection_state.follow_layers(session, run)
    return run_policy.to_rule(run_policy.policy_of(run.policy), run_policy.settings_of(run.policy))


def set_default(session: Session, project: str | None, changes: Fields, *, who: str, now: float) -> None:
    """Change these values of a project, or of the collector without one; None removes a value.

    Running runs follow with their next report; runs that have ended keep the policy that they had. Raises Problem 422
    for a bad value, and then changes nothing.
    """
    key = policies.COLLECTOR if project is None else policies.project_key(project)
    policies.lock(session, key=policies.ALL)
    layers = policies.layers(session, project=project)
    layer = Layer.COLLECTOR if project is None else Layer.PROJECT
    fields = _changed(layers.get(layer, {}), changes)
    _check(_concerned(session, project, {**layers, layer: fields}))
    policies.set_fields(session, key=key, fields=fields, who=who, now=now)
    details = {"layer": layer.value, **({} if project is None else {"project": project}), "changes": dict(changes)}
    access.record(session, who=who, action="policy", run=None, details=details, now=now)
    for run_ids in bulk.key_parts(run_id for run_id, _, _ in policies.running(session, project=project)):
        commands.lock_runs(session, run_ids=run_ids)  # copies of these runs are stale now


def show(session: Session, *, project: str | None = None, run_id: str | None = None) -> dict[str, Any]:
    """Every value of a policy with the layer that it comes from, and what each layer sets.

    Without a run: of new runs of the project, or of the collector. Raises Problem 404 when there is no such run.
    """
    run = None if run_id is None else runs.named(session, run_id)
    layers = policies.layers(session, project=project if run is None else run.project, run_id=run_id)
    rule = None if run is None else run.policy
    if run is None or run.state == RunState.RUNNING:  # one that has ended keeps the policy that it had
        rule = run_policies.readable_rule(layers, rule)
    values = [
        {"name": each.name, "value": each.value, "from": each.layer or "default"}
        # The part of a request that names the value: beside the values of the policy, or under `detection`.
        | {"part": DETECTION if each.name in DETECTION_NAMES else "policy"}
        for each in run_policy.values(layers, rule)
    ]
    return {"values": values, "layers": {layer: dict(layers.get(layer, {})) for layer in Layer}}


def _changed(fields: Fields, changes: Fields) -> dict[str, Any]:
    """The fields of a layer with these changes; where it could not be read, the changes are all that it says."""
    try:
        return run_policy.changed({} if dict(fields) == dict(UNREADABLE_RULE) else fields, changes)
    except (TypeError, ValueError) as error:
        raise _malformed(error) from None


def _concerned(session: Session, project: str | None, layers: Layers) -> Iterable[tuple[str, Layers]]:
    """Whom else a change of these layers concerns (the first: nobody), with all layers of each."""
    yield "", layers
    of_projects = {} if project is not None else policies.projects(session)
    for name, fields in of_projects.items():
        yield f"project {name}", {**layers, Layer.PROJECT: fields}
    for run_id, name, fields in policies.running(session, project=project):
        above = layers if project is not None else {**layers, Layer.PROJECT: of_projects.get(name, {})}
        yield f"run {run_id}", {**above, Layer.RUN: fields}


def _check(concerned: Iterable[tuple[str, Layers]]) -> None:
    for whom, layers in concerned:
        try:
            run_policy.check(layers)
        except (TypeError, ValueError) as error:
            raise _malformed(ValueError(f"{whom}: {error}") if whom else error) from None


def _malformed(error: Exception) -> Problem:
    return Problem(422, "the policy is malformed; nothing was changed", str(error), ["body"])
