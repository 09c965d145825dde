"""The part of MLflow's REST API by which its clients log a run: experiments, runs, metrics, params and tags.

An experiment is a project here. Whatever an MLflow server does besides is answered with 404.
"""

import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from db.models import MlflowExperiment
from db.records import access
from db.runs import mlflow
from db.runs.pages import BadCursor
from lossguard.vocabulary.protocol import (
    MAX_COMMIT,
    MAX_SHORT_TEXT,
    MAX_STEP,
    MAX_TEXT,
    NO_HEARTBEAT,
    decode_number,
)
from lossguard.vocabulary.secrets import mask_command_line, mask_json
from monitor.api import auth
from monitor.api import mlflow as views
from monitor.api.auth import Principal, Reader, Reporter
from monitor.api.dependencies import Claimed, Now, ReadSession, Shared, WriteSession
from monitor.api.parsing import TypedJsonRoute
from monitor.ingestion import run_updates, runs
from monitor.ingestion.run_state.logged_run import LoggedMetric
from monitor.ingestion.run_updates import RUN_NAME, RunUpdate
from monitor.mlflow_schemas import (
    STATES,
    CreateExperimentIn,
    CreateRunIn,
    DeleteTagIn,
    ExperimentId,
    ExperimentTagIn,
    Key,
    LogBatchIn,
    LogInputsIn,
    LogMetricIn,
    LogOutputsIn,
    LogParamIn,
    MetricIn,
    PairIn,
    SearchExperimentsIn,
    SearchRunsIn,
    SetTagIn,
    UpdateRunIn,
)
from monitor.problems import MLFLOW_API, Problem, no_room, run_not_found, unknown, without_retry
from monitor.schemas import Name, RunId, RunIn

router = APIRouter(prefix=MLFLOW_API, tags=["mlflow"], route_class=TypedJsonRoute)

Answer = dict[str, Any]


Store = Callable[[str, RunUpdate], Awaitable[Answer]]


async def _store(collector: Shared, who: Reporter) -> Store:
    """Stores what a request logs, through the queue of the reports."""

    async def store(run_id: str, update: RunUpdate) -> Answer:
        if who.is_bound:
            await run_in_threadpool(auth.check_run, collector.engine, who, run_id)
        result = await collector.reports.store(run_id, update)
        collector.waiting_rows.note(run_id, result.rows_due_at)
        collector.metrics.count_report(result)
        return {}

    return store


Updates = Annotated[Store, Depends(_store)]


@router.post("/experiments/create")
def create_experiment(
    spec: CreateExperimentIn, who: Reporter, session: WriteSession, now: Now, collector: Shared
) -> Answer:
    """Create an experiment: the project of its runs."""
    if who.run is not None or who.project not in (None, spec.name):
        raise auth.bound(who, f"the project {who.project!r}" if who.run is None else f"the run {who.run!r}")
    tags = _checked_tags(_values(spec.tags))
    known = mlflow.experiment_named(session, name=spec.name)
    new = known or mlflow.create_experiment(session, name=spec.name, tags=tags, now=now)
    if known is not None or new is None:
        raise Problem(409, "the experiment exists", f"there is an experiment {spec.name!r} already", ["body", "name"])
    if mlflow.num_experiments(session) > collector.settings.max_runs:
        has, remedy = f"the store holds {collector.settings.max_runs}", "use one of them, or raise LOSSGUARD_MAX_RUNS"
        raise without_retry(no_room("experiment", has, remedy, "name"))
    return {"experiment_id": str(new.id)}


@router.get("/experiments/get-by-name")
def experiment_by_name(experiment_name: Name, who: Reporter, session: ReadSession) -> Answer:
    """The experiment of this name."""
    found = mlflow.experiment_named(session, name=experiment_name)
    return {"experiment": views.experiment(_permitted(session, found, who, experiment_name))}


@router.get("/experiments/get")
def experiment(experiment_id: ExperimentId, who: Reporter, session: ReadSession) -> Answer:
    """The experiment of this id."""
    found = mlflow.experiment(session, number=int(experiment_id))
    return {"experiment": views.experiment(_permitted(session, found, who, experiment_id))}


@router.post("/experiments/search")
def search_experiments(spec: SearchExperimentsIn, who: Reporter, session: ReadSession) -> Answer:
    """The experiments that the token covers, or the one whose name the filter gives: name = '..'."""
    name, covered = views.named(spec.filter), _covered_project(session, who)
    is_other = covered is not None and name not in (None, covered)
    if is_other or spec.view_type == "DELETED_ONLY":
        return {"experiments": []}
    size = min(spec.max_results, MAX_PAGE)
    begin = int(spec.page_token) if _PLACE.fullmatch(spec.page_token) else 0
    found = mlflow.experiments(session, name=name if covered is None else covered, offset=begin, limit=size + 1)
    answer: Answer = {"experiments": [views.experiment(row) for row in found[:size]]}
    return answer | ({"next_page_token": str(begin + size)} if len(found) > size else {})


@router.post("/experiments/set-experiment-tag")
def set_experiment_tag(spec: ExperimentTagIn, who: Reporter, session: WriteSession) -> Answer:
    """Set a tag of an experiment."""
    row = _permitted(session, mlflow.experiment(session, number=int(spec.experiment_id)), who, spec.experiment_id)
    row.tags = _checked_tags(row.tags | _values([spec]))
    return {}


@router.post("/runs/create")
def create_run(spec: CreateRunIn, who: Reporter, session: WriteSession, claim: Claimed, collector: Shared) -> Answer:
    """Create a run of an experiment. Its id is chosen here."""
    number = int(spec.experiment_id)
    project = _permitted(session, mlflow.experiment(session, number=number), who, spec.experiment_id).name
    tags = _values(spec.tags)
    if spec.run_name is not None:
        tags[RUN_NAME] = spec.run_name
    run_id = uuid.uuid4().hex
    auth.check_registration(who, run_id=run_id, project=project)
    registration = RunIn(
        id=run_id,
        project=project,
        name=tags.get(RUN_NAME, "")[:MAX_SHORT_TEXT] or None,
        config=run_updates.config_of({}, tags),
        command=mask_command_line(tags.get("mlflow.source.name", ""))[:MAX_TEXT] or None,
        git_commit=tags.get("mlflow.source.git.commit", "")[:MAX_COMMIT] or None,
        capabilities=[NO_HEARTBEAT],
        started_at=claim.now if spec.start_time is None else spec.start_time / 1000,
    )
    try:
        run = runs.register(session, registration, claim=claim, who=who.name, max_runs=collector.settings.max_runs).run
    except Problem as problem:
        raise without_retry(problem) from None
    session.flush()
    user = (spec.user_id or tags.get("mlflow.user", ""))[:MAX_SHORT_TEXT]
    logged = mlflow.create_run(session, run=run, experiment=number, user=user, tags=tags)
    return {"run": views.run(run, logged)}


@router.get("/runs/get")
def show_run(run_id: RunId, who: Reporter, session: ReadSession) -> Answer:
    """A run with its last metrics, params and tags."""
    found = mlflow.run_named(session, run_id=run_id)
    if found is None or not auth.covers_run(who, found[0]):
        raise run_not_found(run_id)
    return {"run": views.run(*found)}


@router.post("/runs/update")
async def update_run(spec: UpdateRunIn, store: Updates, collector: Shared) -> Answer:
    """Rename, end or continue a run."""
    ended_at = None if spec.end_time is None else spec.end_time / 1000
    state = STATES.get(spec.status or "")
    await store(spec.run_id, RunUpdate(name=spec.run_name, state=state, ended_at=ended_at))

    def info() -> Answer:
        with Session(collector.engine) as session:
            found = mlflow.run_named(session, run_id=spec.run_id)
            if found is None:
                raise run_not_found(spec.run_id)
            return views.run_info(*found)

    return {"run_info": await run_in_threadpool(info)}


@router.post("/runs/log-metric")
async def log_metric(spec: LogMetricIn, store: Updates) -> Answer:
    """Log one value of a metric."""
    return await store(spec.run_id, RunUpdate(metrics=_metrics([spec])))


@router.post("/runs/log-batch")
async def log_batch(spec: LogBatchIn, store: Updates) -> Answer:
    """Log metrics, params and tags at once: all of them or none."""
    params, tags = _values(spec.params), _values(spec.tags)
    return await store(spec.run_id, RunUpdate(metrics=_metrics(spec.metrics), params=params, tags=tags))


@router.post("/runs/log-parameter")
async def log_parameter(spec: LogParamIn, store: Updates) -> Answer:
    """Log a param, which is part of the run's configuration. It cannot be changed."""
    return await store(spec.run_id, RunUpdate(params=_values([spec])))


@router.post("/runs/set-tag")
async def set_tag(spec: SetTagIn, store: Updates) -> Answer:
    """Set a tag."""
    return await store(spec.run_id, RunUpdate(tags=_values([spec])))


@router.post("/runs/delete-tag")
async def delete_tag(spec: DeleteTagIn, store: Updates) -> Answer:
    """Delete a tag."""
    return await store(spec.run_id, RunUpdate(removed_tag=spec.key))


@router.post("/runs/log-inputs")
async def log_inputs(spec: LogInputsIn, store: Updates) -> Answer:
    """Log the data sets of a run."""
    return await store(spec.run_id, RunUpdate(inputs=spec.datasets))


@router.post("/runs/outputs")
async def log_outputs(spec: LogOutputsIn, store: Updates) -> Answer:
    """Taken, so that the client goes on: models are not kept here."""
    return await store(spec.run_id, RunUpdate())


@router.post("/runs/search")
def search_runs(spec: SearchRunsIn, who: Reader, session: ReadSession) -> Answer:
    """The runs of these experiments, the newest first, in pages."""
    wanted = views.run_search(spec.filter)
    views.check_order(spec.order_by)
    if spec.run_view_type == "DELETED_ONLY":
        return {"runs": []}
    found = mlflow.runs(
        session,
        experiments=[int(number) for number in spec.experiment_ids],
        params=wanted.params,
        tags=wanted.tags,
        after=spec.page_token,
    )
    shown = (row for row in found if auth.covers_run(who, row[0]) and wanted.fits(*row))
    try:
        rows = list(islice(shown, spec.max_results + 1))
    except BadCursor as error:
        raise Problem(422, "the request is malformed", str(error), ["body", "page_token"]) from None
    page = rows[: spec.max_results]
    answer: Answer = {"runs": [views.run(*row) for row in page]}
    return answer | ({"next_page_token": mlflow.cursor(page[-1][0])} if len(rows) > len(page) else {})


@router.get("/metrics/get-history")
def history(
    run_id: RunId,
    metric_key: Key,
    who: Reader,
    session: ReadSession,
    max_results: Annotated[int, Query(ge=1, le=25_000)] = 25_000,
    page_token: Annotated[int, Query(ge=0)] = 0,
) -> Answer:
    """Every value of a metric, one a step, in the order of the segments and steps."""
    found = mlflow.run_named(session, run_id=run_id)
    if found is None or not auth.covers_run(who, found[0]):
        raise run_not_found(run_id)
    begin = min(page_token, MAX_STEP)  # no history is longer
    end = begin + max_results
    page = [views.metric(*one) for one in islice(views.values(session, *found, key=metric_key), begin, end + 1)]
    return {"metrics": page[:max_results]} | ({"next_page_token": str(end)} if len(page) > max_results else {})


def _metrics(specs: Sequence[MetricIn]) -> list[LoggedMetric]:
    return [LoggedMetric(spec.key, decode_number(spec.value) or 0.0, spec.timestamp, spec.step) for spec in specs]


def _values(pairs: Sequence[PairIn]) -> dict[str, str]:
    values: dict[str, str] = mask_json({pair.key: pair.value for pair in pairs})
    return values


# Experiments: which of them a token covers, and how large they may be.

MAX_EXPERIMENT_TAGS = 100
"""Maximum tags of an experiment."""
MAX_EXPERIMENT_TEXT = 64 << 10
"""Maximum characters of them together, names included."""
MAX_PAGE = 1000
"""Maximum experiments in an answer, whatever a client asks for."""
_PLACE = re.compile(r"[0-9]{1,9}")


def _checked_tags(tags: dict[str, str]) -> dict[str, str]:
    """Return the tags of an experiment. Raises Problem 422 for too many, or too long ones."""
    num_characters = sum(len(key) + len(value) for key, value in tags.items())
    if len(tags) > MAX_EXPERIMENT_TAGS or num_characters > MAX_EXPERIMENT_TEXT:
        detail = f"an experiment has at most {MAX_EXPERIMENT_TAGS} tags of {MAX_EXPERIMENT_TEXT} characters together"
        raise Problem(422, "too many tags; nothing was stored", detail, ["body"])
    return tags


def _covered_project(session: Session, who: Principal) -> str | None:
    """Return the project of the only experiment that a bound token covers; None: it covers all.

    That of a token for one run is the project of this run; "", which no experiment is called, before there is the run.
    """
    if who.run is None:
        return who.project
    owner = access.owner_of(session, run_id=who.run)
    return owner.project if owner is not None and who.covers(owner) else ""


def _permitted(session: Session, row: MlflowExperiment | None, who: Principal, name: object) -> MlflowExperiment:
    """The experiment. Raises Problem 404 when there is none, or the token does not cover it."""
    if row is None or _covered_project(session, who) not in (None, row.name):
        raise unknown("experiment", name)
    return row
