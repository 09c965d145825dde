"""Runs that record into a folder, and what stands in their spools."""

import json
from pathlib import Path
from typing import Any

import lossguard
from lossguard.spool.spool import spools_in


def offline(folder: Path, **options: Any) -> lossguard.Run:
    return lossguard.init("project", mode="offline", directory=folder, **options)


def records(run: lossguard.Run) -> list[dict[str, Any]]:
    assert run.directory is not None
    return [json.loads(line) for path in spools_in(run.directory) for line in path.read_bytes().splitlines()]


def steps(run: lossguard.Run) -> list[tuple[int, dict[str, Any]]]:
    return [(record["step"], record["metrics"]) for record in records(run) if "metrics" in record]
