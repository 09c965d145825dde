"""A run as a file."""

from itertools import chain

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from db.files.export import Format, UnknownRun, stream
from monitor.api.auth import Reader
from monitor.problems import unknown
from monitor.schemas import RunId

router = APIRouter(prefix="/runs", tags=["export"])

MEDIA_TYPES = {Format.PARQUET: "application/vnd.apache.parquet", Format.CSV: "text/csv"}
FILE_SCHEMA = {"type": "string", "format": "binary"}


@router.get(
    "/{run_id}/export",
    response_class=StreamingResponse,
    responses={200: {"content": {media: {"schema": FILE_SCHEMA} for media in MEDIA_TYPES.values()}}},
)
def export(run_id: RunId, _who: Reader, request: Request, format: Format = Format.PARQUET) -> StreamingResponse:
    """The whole run as one Parquet file, or its steps as CSV, streamed. If the connection breaks, request it again."""
    pieces = stream(request.app.state.engine, run_id=run_id, format=format)
    try:
        first = next(pieces)  # before the response starts, so that an error here has the usual shape
    except UnknownRun:
        raise unknown("run", run_id) from None
    headers = {"content-disposition": f'attachment; filename="{run_id}.{format}"'}
    return StreamingResponse(chain([first], pieces), media_type=MEDIA_TYPES[format], headers=headers)
