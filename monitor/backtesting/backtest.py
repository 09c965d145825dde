"""Runs detection and policy on recorded rows: the policy proposes, nothing is rolled back."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lossguard.vocabulary.source_facts import EVERY_STEP, SourceFacts
from monitor.detection import DetectionSettings, Incident, Intervention, Mode, Policy, Rows
from monitor.detection.curve import CurveError as CurveError
from monitor.detection.curve import parse_curve
from monitor.detection.simulation import SegmentRows, score, simulate


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
    declared: Iterable[tuple[int, str]] = (),
    source: SourceFacts = EVERY_STEP,
) -> dict[str, Any]:
    """The result for recorded rows: {"steps", "outliers", "incidents": [...]}, a checkpoint every CHECKPOINT_STEPS.

    `declared`: (step, kind) of the events that the run declared; `source`: how the rows were made. Raises CurveError
    for a policy that gives orders.
    """
    if policy is not None and policy.mode is Mode.AUTO:
        raise CurveError(
            "mode=auto: a backtest has no trainer that could execute orders; it proposes them, as with mode=approve."
        )
    settings = settings or DetectionSettings()
    scored = score([SegmentRows(rows, declared=tuple(declared), source=source)], settings)
    simulation = simulate(scored, settings, policy or Policy())
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
        raise CurveError(f"{path}: cannot be read: {error.strerror or error}.") from None
