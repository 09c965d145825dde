"""Backtest: what the detectors and the policy would have said and done on a recorded curve.

    python -m monitor backtest CURVE.csv... [--json]

Columns: step and loss, optionally grad_norm, log_z, lr, tokens, batch_index.
Nothing is rolled back: the policy proposes.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from monitor.detection import DetectionSettings, Incident, Intervention, Mode, Policy, Rows
from monitor.detection.curve import CurveError as CurveError
from monitor.detection.curve import parse_curve
from monitor.detection.simulation import CHECKPOINT_STEPS, SegmentRows, score, simulate


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
    """What a watch says of recorded rows, with a checkpoint every `every` steps.

    `declared`: (step, kind) of the events that the run announced. Raises CurveError for a policy that would order.
    """
    if policy is not None and policy.mode is Mode.AUTO:
        raise CurveError("mode=auto: a backtest has no trainer that could obey; it proposes, as with mode=approve.")
    settings = settings or DetectionSettings()
    scored = score([SegmentRows(rows, declared=tuple(declared))], settings)
    simulation = simulate(scored, settings, policy or Policy(), every=every)
    found = [
        told(incident, simulation.actions.get(number)) for number, incident in sorted(simulation.incidents.items())
    ]
    return {"steps": len(rows), "outliers": simulation.outliers, "incidents": found}


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
            return parse_curve(str(path), file)
    except OSError as error:
        raise CurveError(f"{path}: cannot be read: {error}.") from None


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
