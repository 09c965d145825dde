"""A run as a file."""

from itertools import chain
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from db.files.export import WHOLE, Format, StepSelection, UnknownMetric, UnknownRun, stream
from db.lineage import Line
from lossguard.vocabulary.protocol import MAX_METRICS, MAX_STEP
from monitor.api.auth import Reader
from monitor.api.dependencies import Shared
from monitor.problems import MALFORMED, Problem, unknown
from monitor.schemas import Name, RunId

router = APIRouter(prefix="/runs", tags=["export"])

MEDIA_TYPES = {
    Format.PARQUET: "application/vnd.apache.parquet",
    Format.CSV: "text/csv",
    Format.ARROW: "application/vnd.apache.arrow.stream",
}
ONLY_WHOLE = "a Parquet file holds the whole run: leave out metrics, line, from and to, or ask for format=arrow or csv"
FILE_SCHEMA = {"type": "string", "format": "binary"}


@router.get(
    "/{run_id}/export",
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
    first: Annotated[int | None, Query(alias="from", ge=0, lt=MAX_STEP)] = None,
    last: Annotated[int | None, Query(alias="to", ge=0, lt=MAX_STEP)] = None,
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
