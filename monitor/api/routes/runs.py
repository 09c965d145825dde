"""Runs with their segments, reports, incidents, verdicts and notes."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from db import queries
from db.goodput import reading, rollback_costs
from db.lineage import source_of
from db.records import arms
from db.records.step_notes import step_notes
from db.runs.overview import Standing, Tally, standings, tallies
from db.runs.verdicts import verdicts
from lossguard.vocabulary.protocol import SPOOL_HEADER
from monitor.actions import decisions, edits
from monitor.api import auth, plain_reports, responses
from monitor.api.auth import Operator, Reader, Reporter
from monitor.api.dependencies import Claimed, Now, ReadSession, SentBy, Shared, WriteSession
from monitor.api.parsing import TypedJsonRoute
from monitor.api.plain_reports import Head
from monitor.api.run_lists import Lists
from monitor.ingestion import runs
from monitor.schemas import FinishIn, RecordId, ReportIn, RunEditIn, RunId, RunIn, SegmentIn, StepNoteIn, VerdictIn

router = APIRouter(tags=["runs"], route_class=TypedJsonRoute)
of_notes = APIRouter(prefix="/runs/{run_id}/notes", tags=["notes"], route_class=TypedJsonRoute)


@router.get("/overview")
def overview(
    who: Reader, session: ReadSession, now: Now, lists: Lists, config: Annotated[bool, Query()] = False
) -> list[dict[str, Any]]:
    """Return the runs of GET /runs with verdict, newest step, last values and what is open.

    `config=true`: with configurations. Its cost does not depend on the length of the runs.
    """
    default = [name for name in responses.STANDING_FIELDS if config or name != "config"]
    fields = lists.fields(responses.STANDING_FIELDS) or default
    found = lists.page(session, who, now=now, columns=responses.columns_of_standing(fields))
    newest = standings(session, runs=found) if {"step", "metrics"} & set(fields) else {}
    counts = tallies(session, runs=found) if {"open_incidents", "waiting"} & set(fields) else {}
    judged = verdicts(session, runs=found, now=now) if set(responses.JUDGED) & set(fields) else {}
    return [
        responses.standing(run, newest.get(run.pk, Standing()), counts.get(run.pk, Tally()), judged.get(run.pk), fields)
        for run in found
    ]


@router.post("/runs", status_code=201)
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


@router.get("/runs")
def list_runs(who: Reader, session: ReadSession, now: Now, lists: Lists) -> list[dict[str, Any]]:
    """Runs, the newest first: with `limit`, in pages, whose `Link` header names the next one; without it, all."""
    fields = lists.fields(responses.RUN_FIELDS)
    found = lists.page(session, who, now=now, columns=fields or ())
    return [responses.run(run, fields) for run in found]


@router.get("/runs/{run_id}")
def show(run_id: RunId, _who: Reader, session: ReadSession, now: Now) -> dict[str, Any]:
    """A run with verdict, segments, interventions, tried arms, orders, skip ledger, events (the newest 10,000), newest
    step and kind of rows."""
    run = runs.named(session, run_id)
    names = queries.metric_names(session, run=run)
    counts = queries.step_counts(session, run=run)
    events = queries.newest_events(session, run=run)
    source = source_of(events)
    return (
        responses.run(run)
        | asdict(verdicts(session, runs=[run], now=now)[run.pk])
        | {
            "latest": dict(standings(session, runs=[run]).get(run.pk, Standing()).metrics),
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
            "source": source.to_details() | {"sentences": source.describe()},
        }
    )


@router.get("/runs/{run_id}/goodput")
def goodput(run_id: RunId, _who: Reader, session: ReadSession, now: Now) -> dict[str, Any]:
    """The seconds of the run by what they were used for, each second once, and the share that trained the model."""
    run = runs.named(session, run_id)
    found = reading.breakdown(session, run=run, now=now)
    return {"goodput": found.goodput, "total_seconds": found.total, "seconds": dict(found.seconds)}


@router.get("/runs/{run_id}/costs")
def costs(run_id: RunId, _who: Reader, session: ReadSession) -> dict[str, Any]:
    """Return the costs of each rewind, oldest first, and their sums: steps, tokens, seconds."""
    run = runs.named(session, run_id)
    orders = {order.intervention: order for order in queries.orders(session, run=run)}
    tree = queries.segments(session, run=run)
    return responses.costs(rollback_costs.read_rewinds(session, run=run, segments=tree, orders=orders))


@router.post("/runs/{run_id}/segments")
def open_segment(
    run_id: RunId, spec: SegmentIn, _who: Reporter, session: WriteSession, claim: Claimed, collector: Shared
) -> dict[str, Any]:
    """Open a segment, or return the one with the same key."""
    segment = runs.open_segment(session, run_id, spec, claim=claim, max_segments=collector.settings.max_segments)
    return {"segment": segment.number, "parent": segment.parent, "fork_step": segment.fork_step}


@router.post("/runs/{run_id}/reports")
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


@router.post("/runs/{run_id}/finish")
def finish(run_id: RunId, spec: FinishIn, _who: Reporter, session: WriteSession, claim: Claimed) -> dict[str, Any]:
    """The run has ended or was interrupted. Changes nothing while another process holds the lease."""
    return responses.run(runs.finish(session, run_id, spec, claim=claim))


@router.post("/runs/{run_id}/lease")
def take_lease(run_id: RunId, _who: Reporter, session: WriteSession, claim: Claimed) -> dict[str, Any]:
    """Take or renew the lease of the run, before a process resumes it; 409 while another process holds it."""
    return {"lease": runs.take_lease(session, run_id, claim=claim)}


@router.delete("/runs/{run_id}/lease", status_code=204)
def end_lease(run_id: RunId, who: Operator, session: WriteSession, now: Now) -> None:
    """Take the run from the process that holds it, so that another one gets the orders."""
    decisions.end_lease(session, run_id, who=who.author, now=now)


@router.patch("/runs/{run_id}")
def edit(run_id: RunId, spec: RunEditIn, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Rename, tag, note or archive a run: what the body names."""
    return responses.run(edits.edit_run(session, run_id, spec, who=who.author, now=now))


@router.delete("/runs/{run_id}", status_code=204)
def delete(run_id: RunId, who: Operator, session: WriteSession, now: Now) -> None:
    """Delete a run and everything that belongs to it."""
    decisions.delete(session, run_id, who=who.author, now=now)


@router.get("/runs/{run_id}/incidents")
def incidents(run_id: RunId, _who: Reader, session: ReadSession) -> list[dict[str, Any]]:
    """The run's incidents, oldest first."""
    run = runs.named(session, run_id)
    return [responses.record(row) for row in queries.incidents(session, run=run)]


@router.get("/runs/{run_id}/incidents/{number}")
def incident(run_id: RunId, number: RecordId, _who: Reader, session: ReadSession) -> dict[str, Any]:
    """One incident of the run."""
    return responses.record(edits.find_incident(session, run_id, number))


@router.put("/runs/{run_id}/incidents/{number}/verdict")
def verdict(
    run_id: RunId, number: RecordId, spec: VerdictIn, who: Reporter, session: WriteSession, now: Now
) -> dict[str, Any]:
    """The verdict of a replay (`python -m trainer replay`) on an incident; it replaces an earlier one."""
    verdict = spec.model_dump(mode="json")
    return responses.record(edits.record_verdict(session, run_id, number, verdict, who=who.author, now=now))


@of_notes.get("")
def notes(run_id: RunId, _who: Reader, session: ReadSession) -> list[dict[str, Any]]:
    """The notes of a run, by step."""
    return [responses.record(note) for note in step_notes(session, run=runs.named(session, run_id))]


@of_notes.post("", name="add", status_code=201)
def add_note(run_id: RunId, spec: StepNoteIn, who: Operator, session: WriteSession, now: Now) -> dict[str, Any]:
    """Write a note at a step of the run; `step` null: at the newest."""
    return responses.record(edits.add_note(session, run_id, spec, who=who.author, now=now))


@of_notes.delete("/{note_id}", name="delete", status_code=204)
def delete_note(run_id: RunId, note_id: RecordId, who: Operator, session: WriteSession, now: Now) -> None:
    """Delete a note. The audit trail keeps what it said."""
    edits.delete_note(session, run_id, note_id, who=who.author, now=now)
