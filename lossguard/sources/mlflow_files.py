"""MLflow's file store (mlruns/): a folder for each experiment, in it one for each run, in it a file for each metric."""

import heapq
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossguard.sources.mlflow_run import described
from lossguard.sources.rows import Row
from lossguard.sources.scalar_rows import StoredScalar, joined
from lossguard.sources.source_run import BadSource, SourceRun

WHAT = "MLflow's file stores (mlruns)"
STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


def runs_in(path: Path) -> Iterator[SourceRun]:
    if not path.is_dir():
        return
    for meta_file in sorted({*path.glob("meta.yaml"), *path.rglob("meta.yaml")}):
        meta = _read_meta(meta_file)
        if "run_id" in meta and "artifact_uri" in meta and meta.get("lifecycle_stage") != "deleted":
            yield _run(meta_file.parent, meta)


def _run(folder: Path, meta: dict[str, Any]) -> SourceRun:
    experiment = _read_meta(folder.parent / "meta.yaml").get("name")
    status = meta.get("status")
    return described(
        run_id=str(meta["run_id"]),
        name=str(meta["run_name"]) if meta.get("run_name") else None,
        experiment=None if experiment is None else str(experiment),
        status=STATUS.get(status, "") if isinstance(status, int) else str(status),
        started_at=_number(meta.get("start_time")),
        ended_at=_number(meta.get("end_time")),
        params=_texts(folder / "params"),
        tags=_texts(folder / "tags"),
        place=str(folder),
        rows=lambda: _rows(folder / "metrics"),
    )


def _rows(folder: Path) -> Iterator[Row]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return joined(heapq.merge(*(_scalars(file, file.relative_to(folder).as_posix()) for file in files)))


def _scalars(path: Path, name: str) -> Iterator[StoredScalar]:
    """A line is: timestamp (ms), value, step. The first stores had no step, newer ones append more."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            cells = line.split()
            if not cells:
                continue
            try:
                step = int(cells[2]) if len(cells) > 2 else 0
                yield StoredScalar(int(cells[0]) / 1000, step, name, float(cells[1]))
            except (ValueError, IndexError):
                if line.endswith("\n"):  # else the line is still being written
                    raise BadSource(f"{path}, line {number} is not: timestamp, value, step") from None


def _texts(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8", errors="replace") for file in files}


def _read_meta(path: Path) -> dict[str, Any]:
    """The flat YAML that MLflow writes: a name and a value per line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: _scalar(value.strip()) for line in lines for name, colon, value in [line.partition(": ")] if colon}


def _scalar(text: str) -> Any:
    if text[:1] == text[-1:] == "'" and len(text) > 1:
        return text[1:-1].replace("''", "'")
    if text[:1] == '"':
        try:
            return json.loads(text)
        except ValueError:
            return text
    if text in ("null", "~", ""):
        return None
    return int(text) if text.lstrip("-").isdecimal() else text


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None
