"""Backtest: what the detectors and the policy would have said and done on a recorded curve.

    python -m monitor backtest CURVE.csv... [--json]

Columns: step and loss, optionally grad_norm, log_z, lr, tokens, batch_index.
Nothing is rolled back: the policy proposes.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from monitor.detection import (
    DetectionSettings,
    Incident,
    IncidentChanged,
    Intervention,
    InterventionChanged,
    Mode,
    Outlier,
    Policy,
    Rows,
    Watch,
)

COLUMNS = ("loss", "grad_norm", "log_z", "lr", "tokens", "batch_index")
CHECKPOINT_STEPS = 100
"""A recorded curve does not say where its checkpoints were: the backtest supposes one every so many steps."""
REPORT_ROWS = 1000


class CurveError(ValueError):
    """A curve that cannot be read, or tested as asked; the message is one sentence, with file and line."""


def backtest_file(
    path: str | Path, settings: DetectionSettings | None = None, policy: Policy | None = None
) -> dict[str, Any]:
    """The result for one CSV file, as fixed in the design. Raises CurveError."""
    return {"file": str(path)} | backtest_rows(read_curve(path), settings, policy)


def backtest_rows(
    rows: Rows,
    settings: DetectionSettings | None = None,
    policy: Policy | None = None,
    *,
    every: int = CHECKPOINT_STEPS,
    declared: Iterable[tuple[int, str]] = (),
) -> dict[str, Any]:
    """Drive a watch over recorded rows, with a checkpoint every `every` steps, and collect what it says.

    `declared`: (step, kind) of the events that the run announced. The policy proposes, so that a person's word or a
    trainer's deed is never waited for; raises CurveError for a policy that would order.
    """
    if policy is not None and policy.mode is Mode.AUTO:
        raise CurveError("mode=auto: a backtest has no trainer that could obey; it proposes, as with mode=approve.")
    watch = Watch(settings, replace(policy or Policy(), mode=Mode.APPROVE))
    for step, kind in declared:
        watch.declare(step, kind, {})
    incidents: dict[int, Incident] = {}
    actions: dict[int, Intervention] = {}
    outliers = 0
    for part in rows.split(REPORT_ROWS):
        checkpoints = range(0, int(part.steps[-1]) + 1, every)
        for effect in watch.feed(part, restorable=checkpoints):
            match effect:
                case IncidentChanged(incident):
                    incidents[incident.number] = incident
                case InterventionChanged(intervention) if intervention.incident is not None:
                    actions.setdefault(intervention.incident, intervention)
                case Outlier():
                    outliers += 1
    found = [told(incident, actions.get(number)) for number, incident in sorted(incidents.items())]
    return {"steps": len(rows), "outliers": outliers, "incidents": found}


def told(incident: Incident, action: Intervention | None) -> dict[str, Any]:
    """One incident as the design fixes it, with its reasons."""
    deed: dict[str, Any] = {"kind": "none", "rewind_to": None, "skip_from": None, "skip_to": None}
    if action is not None:
        deed = {name: getattr(action, name) for name in ("kind", "rewind_to", "skip_from", "skip_to")}
    names = ("kind", "signal", "onset_step", "detected_step", "peak_step", "end_step", "score", "outcome")
    return {name: getattr(incident, name) for name in names} | {
        "action": deed,
        "reasons": [*incident.reasons, *(action.reasons if action is not None else [])],
    }


def read_curve(path: str | Path) -> Rows:
    """Rows of a CSV file. An empty cell is a metric that was not reported; nan and inf are kept. Raises CurveError."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            cells = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CurveError(f"{path}: cannot be read: {error}.") from None
    table = [_numbers(path, line, header, row) for line, row in cells]
    steps = [_step(path, line, values["step"]) for (line, _), values in zip(cells, table, strict=True)]
    for (line, _), before, step in zip(cells[1:], steps, steps[1:], strict=False):
        if step <= before:
            word = "a duplicate of" if step == before else "not above"
            raise CurveError(f"{path}, line {line}: step {step} is {word} the step before it, {before}.")
    if len(steps) < 2:
        raise CurveError(f"{path}, line {len(steps) + 1}: a curve needs at least two rows, this one has {len(steps)}.")
    return Rows.of(steps, **{name: [values[name] for values in table] for name in COLUMNS if name in header})


def _check_header(path: str | Path, header: Sequence[str]) -> None:
    if not header:
        raise CurveError(f"{path}, line 1: the file is empty.")
    missing = [name for name in ("step", "loss") if name not in header]
    if missing:
        raise CurveError(f"{path}, line 1: no column {' and no column '.join(missing)} among {', '.join(header)}.")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise CurveError(f"{path}, line 1: column {twice[0]} is there twice.")


def _numbers(path: str | Path, line: int, header: Sequence[str], row: Sequence[str]) -> dict[str, float | None]:
    if len(row) != len(header):
        raise CurveError(f"{path}, line {line}: {len(row)} cells for {len(header)} columns.")
    values: dict[str, float | None] = {}
    for name, cell in zip(header, row, strict=True):
        if name not in ("step", *COLUMNS):
            continue
        try:
            values[name] = float(cell) if cell.strip() else None
        except ValueError:
            raise CurveError(f"{path}, line {line}: {name} is {cell!r}, not a number.") from None
    return values


def _step(path: str | Path, line: int, value: float | None) -> int:
    if value is None or not math.isfinite(value) or value != int(value) or abs(value) >= 2**53:
        raise CurveError(f"{path}, line {line}: step is {value}, not a whole number.")
    return int(value)


def table(results: Iterable[Mapping[str, Any]]) -> Table:
    """The same, to be read by a person."""
    names = ("file", "kind", "signal", "onset", "detected", "peak", "end", "score", "outcome", "action")
    out = Table(*(Column(name, overflow="fold") for name in names))
    for result in results:
        name = Path(str(result.get("file", "run"))).name
        if not result["incidents"]:
            out.add_row(name, f"none in {result['steps']} rows", *[""] * 8)
        for found in result["incidents"]:
            steps = [str(found[key]) for key in ("onset_step", "detected_step", "peak_step")]
            end = "-" if found["end_step"] is None else str(found["end_step"])
            words = (name, found["kind"], found["signal"], *steps, end, f"{found['score']:.2f}", found["outcome"])
            out.add_row(*map(str, words), deed_in_words(found["action"]))
            name = ""
    return out


def deed_in_words(action: Mapping[str, Any]) -> str:
    if action["kind"] != "rollback":
        return str(action["kind"])
    return f"rewind to {action['rewind_to']}, skip batches {action['skip_from']}-{action['skip_to'] - 1}"
