"""Runs with their segments, reports, incidents and verdicts."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from db import queries
from db.goodput import reading, rollback_costs
from db.records import arms
from db.runs import overview, verdicts
from lossguard.vocabulary.protocol import SPOOL_HEADER
from monitor.actions import decisions, run_edits
from monitor.actions import verdicts as replay_verdicts
from monitor.api import auth, plain_reports, responses
from monitor.api.auth import Operator, Reader, Reporter
from monitor.api.dependencies import Claimed, Now, ReadSession, SentBy, Shared, WriteSession
from monitor.api.parsing import TypedJsonRoute
from monitor.api.plain_reports import Head
from monitor.api.run_lists import Lists
from monitor.ingestion import runs, segments
from monitor.problems import unknown
from monitor.schemas import FinishIn, RecordId, ReportIn, RunEditIn, RunId, RunIn, SegmentIn, VerdictIn

router = APIRouter(prefix="/runs", tags=["runs"], route_class=TypedJsonRoute)


@router.post("", status_code=201)
def register(
    spec: RunIn, response: Response, who: Reporter, session: WriteSession, claim: Claimed, collector: Shared
) -> dict[str, Any]:
    """Create a run (201), or resume the one with the same id (200)."""
    auth.check_registration(who, run_id=spec.id, project=spec.project)
    registered = runs.register(session, spec, claim=claim, who=who.name, max_runs=collector.settings.max_runs)
    if not registered.is_new:
        response.status_code = 200
    problem = registered.policy_problem
    return responses.run(registered.run) | ({} if problem is None else {"policy_problem": problem})


@router.get("")
def list_runs(who: Reader, session: ReadSession, now: Now, lists: Lists) -> list[dict[str, Any]]:
    """Runs, the newest first: with `limit`, in pages, whose `Link` header names the next one; without it, all."""
    fields = lists.fields(responses.RUN_FIELDS)
    found = lists.page(session, who, now=now, columns=fields or ())
    return [responses.run(run, fields) for run in found]


@router.get("/{run_id}")
def show(run_id: RunId, _who: Reader, session: ReadSession, now: Now) -> dict[str, Any]:
    """A run with verdict, segments, interventions, tried arms, orders, skip ledger, events (the newest 10,000), newest
    step and kind of rows."""
    run = queries.run_named(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    names = queries.metric_names(session, run=run)
    counts = queries.step_counts(session, run=run)
    events = queries.newest_events(session, run=run)
    return (
        responses.run(run)
        | responses.verdict(verdicts.verdicts(session, runs=[run], now=now)[run.pk])
        | {
            "latest": dict(overview.standings(session, runs=[run]).get(run.pk, overview.Standing()).metrics),
            "steps_consumed": counts.consumed,
            "steps_effective": counts.effective,
            "metrics": names,
            "newest_step": responses.step(queries.newest_step(session, run=run), names),
            "segments": responses.segments(queries.segments(session, run=run)),
            "interventions": [responses.record(row) for row in queries.interventions(session, run=run)],
            "arms": [responses.record(row) for row in arms.of_run(session, run=run)],
            "orders": [responses.record(row) for row in queries.orders(session, run=run)],
            "skip_ledger": [responses.record(row) for row in queries.skip_ledger(session, run=run)],
            "events": [responses.record(row) for row in events],
            "source": responses.source(events),
        }
    )


@router.get("/{run_id}/goodput")
def goodput(run_id: RunId, _who: Reader, session: ReadSession, now: Now) -> dict[str, Any]:
    """The seconds of the run by what they were used for, each second once, and the share that trained the model."""
    run = queries.run_named(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    return responses.goodput(reading.breakdown(session, run=run, now=now))


@router.get("/{run_id}/costs")
def costs(run_id: RunId, _who: Reader, session: ReadSession) -> dict[str, Any]:
    """Return the costs of each rewind, oldest first, and their sums: steps, tokens, seconds."""
    run = queries.run_named(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    orders = {order.intervention: order for order in queries.orders(session, run=run)}
    tree = queries.segments(session, run=run)
    return responses.costs(rollback_costs.read_rewinds(session, run=run, segments=tree, orders=orders))


@router.post("/{run_id}/segments")
def open_segment(
    run_id: RunId, spec: SegmentIn, _who: Reporter, session: WriteSession, claim: Claimed, collector: Shared
) -> dict[str, Any]:
    """Open a segment, or return the one with the same key."""
    segment = segments.open_segment(session, run_id, spec, claim=claim, max_segments=collector.settings.max_segments)
    return {"segment": segment.number, "parent": segment.parent, "fork_step": segment.fork_step}


@router.post("/{run_id}/reports")
async def report(
    run_id: RunId,
    spec: ReportIn,
    _who: Reporter,
    collector: Shared,
    writer: SentBy,
    spool: Annotated[int | None, Header(alias=SPOOL_HEADER, ge=0, lt=2**62)] = None,
) -> dict[str, Any]:
    """Store step reports, and return the open orders. An empty report is a heartbeat.

    Only the process that holds the lease of the run gets orders; `lease` says for how many seconds it does.
    """
    return await plain_reports.answer(collector.reports, collector.metrics, spec, Head(run_id, writer, spool))


@router.post("/{run_id}/finish")
def finish(run_id: RunId, spec: FinishIn, _who: Reporter, session: WriteSession, claim: Claimed) -> dict[str, Any]:
    """The run has ended or was interrupted. Changes nothing while another process holds the lease."""
    return responses.run(runs.finish(session, run_id, spec, claim=claim))


@router.post("/{run_id}/lease")
def take_lease(run_id: RunId, _who: Reporter, session: WriteSession, claim: Claimed) -> dict[str, Any]:
    """Take or renew the lease of the run, before a process resumes it; 409 while another process holds it."""
    return {"lease": runs.take_lease(session, run_id, claim=claim)}


@router.delete("/{run_id}/lease", status_code=204)
def end_lease(run_id: RunId, who: Operator, session: WriteSession, now: Now) -> None:
    """Take the run from the process that holds it, so that another one gets the orders."""
    decisions.end_lease(session, run_id, who=who.author, now=now)


@router.patch("/{run_id}")
def edit(run_id: RunId, spec: RunEditIn, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Rename, tag, note or archive a run: what the body names."""
    return responses.run(run_edits.edit(session, run_id, spec, who=who.author, now=now))


@router.delete("/{run_id}", status_code=204)
def delete(run_id: RunId, who: Operator, session: WriteSession, now: Now) -> None:
    """Delete a run and everything that belongs to it."""
    decisions.delete(session, run_id, who=who.author, now=now)


@router.get("/{run_id}/incidents")
def incidents(run_id: RunId, _who: Reader, session: ReadSession) -> list[dict[str, Any]]:
    """The run's incidents, oldest first."""
    run = queries.run_named(session, run_id=run_id)
    if run is None:
        raise unknown("run", run_id)
    return [responses.record(row) for row in queries.incidents(session, run=run)]


@router.get("/{run_id}/incidents/{number}")
def incident(run_id: RunId, number: RecordId, _who: Reader, session: ReadSession) -> dict[str, Any]:
    """One incident of the run."""
    return responses.record(replay_verdicts.find_incident(session, run_id, number))


@router.put("/{run_id}/incidents/{number}/verdict")
def verdict(
    run_id: RunId, number: RecordId, spec: VerdictIn, who: Reporter, session: WriteSession, now: Now
) -> dict[str, Any]:
    """The verdict of a replay (`python -m trainer replay`) on an incident; it replaces an earlier one."""
    verdict = spec.model_dump(mode="json")
    return responses.record(replay_verdicts.record_verdict(session, run_id, number, verdict, who=who.author, now=now))
