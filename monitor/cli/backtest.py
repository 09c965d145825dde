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
from db.lineage import source_of
from db.steps import reader
from lossguard.vocabulary.metrics import detector_inputs
from lossguard.vocabulary.protocol import plain_json
from lossguard.vocabulary.states import OrderKind
from lossguard.vocabulary.wording import plural
from monitor.backtesting.backtest import CurveError, backtest_file, backtest_rows
from monitor.backtesting.comparison import comparison
from monitor.cli import parameters
from monitor.cli.store import exit_with, open_store
from monitor.detection import DetectionSettings, Policy
from monitor.ingestion.columns import detector_rows
from monitor.ingestion.run_state import detection_state


def backtest(
    curves: Annotated[
        list[Path] | None,
        typer.Argument(help="CSV: step, loss and optionally grad_norm, log_z, lr, tokens, batch_index"),
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
        compared = comparison(curves or [], detection) if compare else None
    except (CurveError, parameters.BadParameter) as error:
        raise exit_with(error) from None
    if as_json:
        for result in results:
            typer.echo(json.dumps(plain_json(result), allow_nan=False))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)  # a file has no width: do not wrap lines for one
    console.print(table(results))
    if compared is not None:
        console.print(compared)


def backtest_run(run_id: str, detection: DetectionSettings, policy: Policy) -> dict[str, Any]:
    """The result for the live line of a stored run."""
    with open_store() as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            raise exit_with(f"the store has no run {run_id!r}; the dashboard lists all runs")
        line = queries.live(session, run=run)
        inputs = detector_inputs(queries.metric_names(session, run=run))
        columns = reader.read_line(session, run=run, line=line, metrics=inputs)
        if not len(columns.steps):
            raise exit_with(f"run {run_id!r} has no steps yet")
        declared = detection_state.declared(session, run, 0, int(columns.steps[-1]) + 1)
        source = source_of(queries.source_events(session, run=run))
    rows = detector_rows(columns.steps, columns.times, columns.metrics)
    return {"file": run_id} | backtest_rows(rows, detection, policy, declared=declared, source=source)


def table(results: Iterable[Mapping[str, Any]]) -> Table:
    """The results as a table for people."""
    names = ("file", "kind", "signal", "onset", "detected", "peak", "end", "score", "outcome", "action")
    shown = Table(*(Column(name, overflow="fold") for name in names))
    for result in results:
        name = Path(str(result.get("file", "run"))).name
        if not result["incidents"]:
            shown.add_row(name, f"none in {plural(result['steps'], 'row')}", *[""] * 8)
        for incident in result["incidents"]:
            keys = ("kind", "signal", "onset_step", "detected_step", "peak_step", "end_step")
            cells = [name, *("-" if incident[key] is None else str(incident[key]) for key in keys)]
            outcome = str(incident["outcome"])
            shown.add_row(*cells, f"{incident['score']:.2f}", outcome, _action_text(incident["action"]))
            name = ""
    return shown


def _action_text(action: Mapping[str, Any]) -> str:
    if action["kind"] != OrderKind.ROLLBACK:
        return str(action["kind"])
    if action["skip_from"] is None:
        return f"rewind to {action['rewind_to']}, skip nothing"
    return f"rewind to {action['rewind_to']}, skip batches {action['skip_from']} to {action['skip_to'] - 1}"
