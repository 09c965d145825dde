"""python -m monitor backtest: what detection and policy would have concluded and done on recorded curves.

python -m monitor backtest CURVE.csv... [--json]
python -m monitor backtest --run RUN

Columns of a CSV file: step and loss, optionally grad_norm, log_z, lr, tokens, batch_index.
Nothing is rolled back: the policy proposes.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from db import queries
from db.steps import reader
from lossguard.json_values import plain_json
from lossguard.metrics import DETECTOR_INPUTS
from lossguard.states import OrderKind
from monitor.cli import parameters
from monitor.cli.errors import exit_with
from monitor.cli.store import open_store
from monitor.detection import DetectionSettings, Incident, Intervention, Mode, Policy, Rows
from monitor.detection.curve import CurveError as CurveError
from monitor.detection.curve import parse_curve
from monitor.detection.simulation import CHECKPOINT_STEPS, SegmentRows, score, simulate
from monitor.ingestion import detection_state
from monitor.ingestion.columns import detector_rows


def backtest(
    curves: Annotated[
        list[Path] | None, typer.Argument(help="CSV: step, loss and optionally grad_norm, log_z, lr, tokens")
    ] = None,
    runs: Annotated[list[str] | None, typer.Option("--run", help="a stored run (its live line); repeatable")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=f"{', '.join(parameters.NAMES)}; repeatable")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per line instead of a table")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="compare with the published rules, on the files")] = False,
) -> None:
    """Print what the detection would have found on curves, and what the policy would have done."""
    if not curves and not runs:
        raise exit_with("name a CSV file, or a stored run with --run")
    if compare and (as_json or not curves):
        raise exit_with("--compare prints a table about CSV files: name at least one, without --json")
    try:
        detection, policy = parameters.parse(settings or [])
        results = [backtest_file(curve, detection, policy) for curve in curves or []]
        results += [backtest_run(run, detection, policy) for run in runs or []]
        comparison = _compare(curves or [], detection) if compare else None
    except (CurveError, parameters.BadParameter) as error:
        raise exit_with(error) from None
    if as_json:
        for result in results:
            typer.echo(json.dumps(plain_json(result), allow_nan=False))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)  # a file has no width: do not wrap lines for one
    console.print(table(results))
    if comparison is not None:
        console.print(comparison)


def _compare(curves: list[Path], detection: DetectionSettings) -> Table:
    """The published rules are part of the benchmarks, which an image may lack."""
    try:
        from benchmarks.compare import comparison
    except ModuleNotFoundError:
        raise exit_with("--compare needs the folder benchmarks/ of the repository") from None
    return comparison(curves, detection)


def backtest_run(run_id: str, detection: DetectionSettings, policy: Policy) -> dict[str, Any]:
    """The result for the live line of a stored run."""
    with open_store() as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            raise exit_with(f"the store has no run {run_id!r}; the dashboard lists all runs")
        line = queries.live(session, run=run)
        columns = reader.read_line(session, run=run, line=line, metrics=DETECTOR_INPUTS)
        if not len(columns.steps):
            raise exit_with(f"run {run_id!r} has no steps yet")
        declared = detection_state.declared(session, run, 0, int(columns.steps[-1]) + 1)
    rows = detector_rows(columns.steps, columns.times, columns.metrics)
    return {"file": run_id} | backtest_rows(rows, detection, policy, declared=declared)


def backtest_file(
    path: str | Path, settings: DetectionSettings | None = None, policy: Policy | None = None
) -> dict[str, Any]:
    """The result for one CSV file. Raises CurveError."""
    return {"file": str(path)} | backtest_rows(read_curve(path), settings, policy)


def backtest_rows(
    rows: Rows,
    settings: DetectionSettings | None = None,
    policy: Policy | None = None,
    *,
    every: int = CHECKPOINT_STEPS,
    declared: Iterable[tuple[int, str]] = (),
) -> dict[str, Any]:
    """The result for recorded rows: {"steps", "outliers", "incidents": [...]}, with a checkpoint every `every` steps.

    `declared`: (step, kind) of the events that the run declared. Raises CurveError for a policy that gives orders.
    """
    if policy is not None and policy.mode is Mode.AUTO:
        raise CurveError(
            "mode=auto: a backtest has no trainer that could execute orders; it proposes them, as with mode=approve."
        )
    settings = settings or DetectionSettings()
    scored = score([SegmentRows(rows, declared=tuple(declared))], settings)
    simulation = simulate(scored, settings, policy or Policy(), every=every)
    incidents = [
        described(incident, simulation.actions.get(number)) for number, incident in sorted(simulation.incidents.items())
    ]
    return {"steps": len(rows), "outliers": simulation.outliers, "incidents": incidents}


def described(incident: Incident, intervention: Intervention | None) -> dict[str, Any]:
    """One incident with its action and the reasons for both."""
    action: dict[str, Any] = {"kind": "none", "rewind_to": None, "skip_from": None, "skip_to": None}
    if intervention is not None:
        action = {name: getattr(intervention, name) for name in action}
    names = ("kind", "signal", "onset_step", "detected_step", "peak_step", "end_step", "score", "outcome")
    return {name: getattr(incident, name) for name in names} | {
        "action": action,
        "reasons": [*incident.reasons, *(intervention.reasons if intervention is not None else [])],
    }


def read_curve(path: str | Path) -> Rows:
    """Rows of a CSV file; an empty cell means "not reported", nan and inf are values. Raises CurveError."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return parse_curve(str(path), file)
    except OSError as error:
        raise CurveError(f"{path}: cannot be read: {error}.") from None


def table(results: Iterable[Mapping[str, Any]]) -> Table:
    """The results as a table for people."""
    names = ("file", "kind", "signal", "onset", "detected", "peak", "end", "score", "outcome", "action")
    shown = Table(*(Column(name, overflow="fold") for name in names))
    for result in results:
        name = Path(str(result.get("file", "run"))).name
        if not result["incidents"]:
            shown.add_row(name, f"none in {result['steps']} rows", *[""] * 8)
        for incident in result["incidents"]:
            steps = [str(incident[key]) for key in ("onset_step", "detected_step", "peak_step")]
            end = "-" if incident["end_step"] is None else str(incident["end_step"])
            score = f"{incident['score']:.2f}"
            cells = (name, incident["kind"], incident["signal"], *steps, end, score, incident["outcome"])
            shown.add_row(*map(str, cells), _action_text(incident["action"]))
            name = ""
    return shown


def _action_text(action: Mapping[str, Any]) -> str:
    if action["kind"] != OrderKind.ROLLBACK:
        return str(action["kind"])
    return f"rewind to {action['rewind_to']}, skip batches {action['skip_from']}-{action['skip_to'] - 1}"
