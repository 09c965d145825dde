"""Import exported files, and steps from other sources as CSV. One transaction imports the whole file or nothing.

Parquet   a file that `db.files.export` wrote: the whole run. Its roll-ups are computed again.
CSV       a header and one row per step: `step`, optionally `segment` (0 by default) and `time` (unix seconds; now by
          default), and one column for each metric. `live` is ignored: the tree of segments follows from their first
          steps, and the segment with the highest number is the newest. The caller names the run.

Steps rise within a segment. A file is checked as strictly as what a trainer sends (see `db.files.rules`). What it may
cost is checked before it is read: one block of rows is in memory at a time, whatever the file holds.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import queries
from db.files import csv_file, record
from db.files.export import KEY
from db.files.rules import BadRecord
from db.files.step_import import StepImport
from db.models import Run
from db.records import policies
from db.runs import overview
from db.steps.reader import MAX_BLOCK_STEPS
from db.steps.step_block import column_of, metric_of
from db.store.engine import first_line
from lossguard.sources import memory
from lossguard.vocabulary.protocol import MAX_METRICS, is_name
from lossguard.vocabulary.states import RunState
from lossguard.vocabulary.wording import plural

WHO = "python -m db import"
"""Author of an import in the audit trail, and of the policy that an imported run has."""
MAX_FOOTER_BYTES = 2**31 - 1
"""Maximum footer of a Parquet file; a run with a million events needs more than the default of 100 MB."""
MAX_GROUP_BYTES = 2**29
"""Maximum row group, uncompressed; an export with 1,000 metrics has 160 MB."""
MAX_BLOCK_VALUES = 500_000
"""Values in memory at a time: a file of many columns is read in smaller blocks."""


def limited_memory(path: Path) -> AbstractContextManager[None]:
    """Limit what the import of a file may take: as JSON objects, a description is 30 times as large as its text."""
    pa.allocate_buffer(1)  # Arrow's allocator reserves 1 GiB with its first buffer, and the kernel counts all of it
    return memory.limited(2**29 + 50 * (path.stat().st_size if path.is_file() else 0))


class BadFile(ValueError):
    """The file cannot be imported. The message is one sentence: what is wrong, where, and what to do."""


def import_file(
    session: Session,
    *,
    path: Path,
    now: float,
    run_id: str | None = None,
    project: str | None = None,
    max_metrics: int = MAX_METRICS,
) -> tuple[Run, int]:
    """Import a file: (its run, the number of its steps). Raises BadFile or record.RunExists: roll back then.

    `run_id` replaces the id in the file; the default for a CSV is the name of the file. `project` is for a CSV.
    """
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet and project is not None:
            raise BadFile(
                f"{path}: a Parquet file names the project of its run; leave out the project {project!r:.200}"
            )
        if is_parquet:
            run, count = _import_parquet(session, path, run_id, max_metrics)
        else:
            run, count = _import_csv(session, path, run_id or path.stem, project or "imported", now, max_metrics)
        overview.fill_in(session, run=run)
        _keep_policy(session, run, now)
        return run, count
    except FileNotFoundError:
        raise BadFile(f"there is no file {path}; name a file of `python -m db export`, or a CSV") from None
    except UnicodeDecodeError:
        raise BadFile(f"{path}: neither a Parquet file nor a CSV in UTF-8") from None
    except BadRecord as error:
        raise BadFile(f"{path}: {error}; correct the file, nothing was imported") from error
    except MemoryError:
        raise BadFile(f"{path}: it asks for more memory than an import of a file of its size may take") from None
    except (pa.ArrowException, OSError, OverflowError) as error:
        if of_system := getattr(error, "strerror", None):
            raise BadFile(f"{path}: {of_system}") from error
        reason = (str(error) or repr(error)).splitlines()[0].rstrip(".")
        raise BadFile(f"{path}: the file is damaged ({reason}); export the run again") from error
    except (sa.exc.IntegrityError, sa.exc.DataError) as error:
        raise BadFile(f"{path}: the file contradicts itself: {first_line(error.orig)}") from error


def _keep_policy(session: Session, run: Run, now: float) -> None:
    """Make the rule of the file the run's own layer: it counts beside the layers that this store has.

    Every rule has all fields, so mode `auto`, the default, stays what these layers say.
    """
    fields = {name: value for name, value in (run.policy or {}).items() if (name, value) != ("mode", "auto")}
    if fields:
        key = policies.run_key(run.id)
        policies.set_fields(session, key=key, fields=fields, who=WHO, now=now, run=run, by_operator=False)


def _import_parquet(session: Session, path: Path, run_id: str | None, max_metrics: int) -> tuple[Run, int]:
    with pyarrow.parquet.ParquetFile(
        path, thrift_string_size_limit=MAX_FOOTER_BYTES, page_checksum_verification=True
    ) as file:
        text = (file.metadata.metadata or {}).get(KEY)
        if text is None:
            raise BadFile(f"{path}: this Parquet file does not hold a run; write one with: python -m db export RUN")
        described = record.read(text)
        names: list[str] = described["metrics"]
        _check_num_metrics(names, max_metrics)
        columns = ["segment", "step", "time", *map(column_of, names)]
        _check_columns(file.schema_arrow, columns)
        _check_size(file.metadata, described)
        run = record.restore(session, described, run_id=run_id)
        rows = max(1, min(MAX_BLOCK_STEPS, MAX_BLOCK_VALUES // len(columns)))
        steps = StepImport(session, run, names, place=lambda row: f"row {row}")
        count = steps.insert_all(file.iter_batches(batch_size=rows, columns=columns, use_threads=False))
        _check_complete(session, run, described)
    return run, count


def _check_num_metrics(names: Sequence[str], max_metrics: int) -> None:
    if len(names) > max_metrics:
        raise BadRecord(
            f"it has {len(names):,} metrics, but a run may have {max_metrics:,} "
            "(to allow more, set --max-metrics or LOSSGUARD_MAX_METRICS)"
        )


def _check_columns(schema: pa.Schema, columns: Sequence[str]) -> None:
    """Check that all columns are there once, and hold numbers."""
    num_fields, fields = Counter(schema.names), dict(zip(schema.names, schema.types, strict=True))
    for name in columns:
        if num_fields[name] != 1:
            raise BadRecord(f"the column {name!r} is missing" if name not in fields else f"two columns are {name!r}")
        is_whole = name in ("segment", "step")
        if not (pa.types.is_integer(fields[name]) or (pa.types.is_floating(fields[name]) and not is_whole)):
            what = "whole numbers" if is_whole else "numbers"
            raise BadRecord(f"the column {name!r} holds {str(fields[name])[:80]}, not {what}")


def _check_size(metadata: pyarrow.parquet.FileMetaData, described: dict[str, Any]) -> None:
    """Check the size that the file states, before any of it is read."""
    num_steps = sum(segment["num_steps"] for segment in described["segments"])
    if metadata.num_rows > num_steps:
        raise BadRecord(
            f"it has {plural(metadata.num_rows, 'row')}, but its description counts {plural(num_steps, 'step')}"
        )
    for group in range(metadata.num_row_groups):
        if (size := metadata.row_group(group).total_byte_size) > MAX_GROUP_BYTES:
            raise BadRecord(f"row group {group} has {size:,} bytes, but {MAX_GROUP_BYTES:,} is the most that is read")


def _check_complete(session: Session, run: Run, described: dict[str, Any]) -> None:
    for segment, description in zip(queries.segments(session, run=run), described["segments"], strict=True):
        if segment.num_steps != description["num_steps"]:
            raise BadRecord(
                f"segment {segment.number} has {plural(segment.num_steps, 'step')}, but its description says "
                f"{description['num_steps']} (export the run again)"
            )


def _import_csv(
    session: Session, path: Path, run_id: str, project: str, now: float, max_metrics: int
) -> tuple[Run, int]:
    if not is_name(project):
        raise BadFile(f"{project!r:.200} cannot be the name of a project; use 1 to 128 printable characters")
    try:
        header = csv_file.read_header(path)
    except csv_file.BadLine as error:
        raise BadRecord(str(error)) from None
    names = [name for column in header if (name := metric_of(column)) is not None]
    _check_header(header, names)
    _check_num_metrics(names, max_metrics)
    kinds = {"segment": pa.int32(), "step": pa.int64(), "live": pa.string()}
    types = {name: kinds.get(name, pa.float64()) for name in header}
    nothing: dict[str, Any] = {"config": {}, "devices": [], "versions": {}, "capabilities": [], "restorable_steps": []}
    about = {"id": run_id, "project": project, "state": RunState.FINISHED, "started_at": now, "last_report_at": now}
    run = record.add_run(session, nothing | about)
    steps = StepImport(session, run, names, place=lambda row: f"line {csv_file.line_of(path, row)}", now=now)
    try:
        with csv_file.read_batches(path, types, without=["live"]) as batches:
            count = steps.insert_all(batches)
    except pa.ArrowInvalid as error:
        raise BadRecord(csv_file.first_bad_line(path, types) or str(error).splitlines()[0]) from error
    run.started_at, run.last_report_at = steps.times or (now, now)
    run.finished_at = run.last_report_at
    return run, count


def _check_header(header: Sequence[str], names: Sequence[str]) -> None:
    if "step" not in header:
        raise BadRecord("no column `step`; the first line must name the columns: step, and one for each metric")
    for name, count in Counter(header).items():
        if count > 1:
            raise BadRecord(f"two columns have the name {name!r:.200}")
    for name in names:
        if not is_name(name):
            raise BadRecord(f"{name!r:.200} cannot be the name of a metric; use 1 to 128 printable characters")
