"""Measurements of a run: a metric over steps, samples of its hardware, and the whole run as a file."""

from dataclasses import asdict
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from db import queries
from db.files.export import WHOLE, Format, StepSelection, UnknownMetric, UnknownRun, stream
from db.lineage import Line, StepRange
from db.records import hardware
from lossguard.vocabulary.protocol import MAX_METRICS, MAX_STEP, MAX_TIME
from monitor.api.auth import Reader
from monitor.api.dependencies import ReadSession, Shared
from monitor.ingestion import runs
from monitor.problems import MALFORMED, Problem, unknown
from monitor.schemas import Name, RunId

router = APIRouter(prefix="/runs/{run_id}")

FirstStep = Annotated[int | None, Query(alias="from", ge=0, lt=MAX_STEP)]
LastStep = Annotated[int | None, Query(alias="to", ge=0, lt=MAX_STEP)]


@router.get("/series", tags=["series"])
def series(
    run_id: RunId,
    _who: Reader,
    session: ReadSession,
    metric: Name,
    first: FirstStep = None,
    last: LastStep = None,
    points: Annotated[int, Query(ge=1, le=20_000)] = 1500,
    segment: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
) -> dict[str, Any]:
    """A metric over the live line, or over one whole segment, in at most about `points` buckets with exact values."""
    run = runs.named(session, run_id)
    ranges = queries.live(session, run=run) if segment is None else [StepRange(segment, 0, None)]
    return asdict(
        queries.series(session, run=run, step_ranges=ranges, metric=metric, first=first, last=last, points=points)
    )


@router.get("/hardware", tags=["hardware"])
def samples(
    run_id: RunId,
    _who: Reader,
    session: ReadSession,
    first: Annotated[float | None, Query(alias="from", ge=0, lt=MAX_TIME)] = None,
    last: Annotated[float | None, Query(alias="to", ge=0, lt=MAX_TIME)] = None,
    errors: bool = False,
) -> list[dict[str, Any]]:
    """The samples from one time to another (unix seconds), oldest first; `errors`: only those that count an error."""
    run = runs.named(session, run_id)
    names = ("time", "step", "host", "device", "num_errors")
    return [
        {name: getattr(sample, name) for name in names} | {"values": sample.readings}
        for sample in hardware.samples(session, run=run, first=first, last=last, errors_only=errors)
    ]


MEDIA_TYPES = {
    Format.PARQUET: "application/vnd.apache.parquet",
    Format.CSV: "text/csv",
    Format.ARROW: "application/vnd.apache.arrow.stream",
}
ONLY_WHOLE = "a Parquet file holds the whole run: leave out metrics, line, from and to, or ask for format=arrow or csv"
FILE_SCHEMA = {"type": "string", "format": "binary"}


@router.get(
    "/export",
    tags=["export"],
    response_class=StreamingResponse,
    responses={200: {"content": {media: {"schema": FILE_SCHEMA} for media in MEDIA_TYPES.values()}}},
)
def export(
    run_id: RunId,
    _who: Reader,
    collector: Shared,
    format: Format = Format.PARQUET,
    metrics: Annotated[list[Name] | None, Query(max_length=MAX_METRICS)] = None,
    line: Line = Line.ALL,
    first: FirstStep = None,
    last: LastStep = None,
) -> StreamingResponse:
    """The whole run as one Parquet file, or its steps as CSV or as a stream of Arrow's record batches.

    CSV and Arrow may be of some metrics (the parameter is repeated), of one line and of a range of steps. It is
    streamed; if the connection breaks, request it again.
    """
    selection = StepSelection(None if metrics is None else tuple(metrics), line, first, last)
    if format is Format.PARQUET and selection != WHOLE:
        raise Problem(422, MALFORMED, ONLY_WHOLE, ["query", "format"])
    pieces = stream(collector.engine, run_id=run_id, format=format, selection=selection)
    try:
        start = next(pieces)  # before the response starts, so that an error here has the usual shape
    except UnknownRun:
        raise unknown("run", run_id) from None
    except UnknownMetric as error:
        raise Problem(404, "no such metric", str(error), ["query", "metrics"]) from None
    headers = {"content-disposition": f'attachment; filename="{run_id}.{format}"'}
    return StreamingResponse(chain([start], pieces), media_type=MEDIA_TYPES[format], headers=headers)
