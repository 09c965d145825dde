"""The probability that a loss spike does not recover by itself: its weights, and how well it is calibrated.

python -m benchmarks.recovery                              the tables of docs/policy.md, on seeds of no choice
python -m benchmarks.recovery --first-seed 100 --seeds 4   other seeds
python -m benchmarks.recovery --fit                        the weights of monitor/detection/incidents/recovery.py

Spikes of the messy suite recover, and its rises for good last. An incident is asked at every row while it is open.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.harness import heading
from benchmarks.messy import FIRST_SEED, RISES, SEEDS
from benchmarks.messy_runs import KINDS, NORMS, RISE_ROW, MessyRun
from lossguard.vocabulary.states import IncidentKind, Outcome
from monitor.backtesting.labelled_curves import read_folder
from monitor.detection import DetectionEngine, DetectionSettings, Incident, Policy, Rows
from monitor.detection.effects import Effect, IncidentChanged
from monitor.detection.incidents.incident_tracker import IncidentTracker
from monitor.detection.incidents.open_incident import Readings
from monitor.detection.incidents.recovery import MAX_ROWS, SpikeShape
from monitor.detection.rows import Floats
from monitor.detection.scoring.scored_rows import RecentRows
from monitor.detection.settings import Mode
from monitor.detection.simulation import CHECKPOINT_STEPS

STRETCHES = (1.0, 1.0, 1.0, 2.5, 1.0, 1.0, 0.4)
"""Lengths of the spikes of seeds 0 to 6, to which the weights are fitted: runs differ in how long their spikes take."""
PENALTY = 1e-3
ROWS_SHOWN = (0, 6, 12, 24, 40, 60)
BINS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
LATEST = 30
"""Rows after a rise in which the incident that is about it begins."""


@dataclass(slots=True)
class Case:
    """A loss spike, as it looked at each of its rows while it was open, and whether it lasted."""

    lasted: bool
    shapes: list[SpikeShape] = field(default_factory=list)

    def at(self, rows: int) -> float | None:
        """The probability this many rows after the detection; None: the spike was over."""
        return next((each.lasting_probability() for each in self.shapes if each.rows == rows), None)


@dataclass(slots=True)
class WatchedTracker(IncidentTracker):
    """Remembers the shapes of each loss spike."""

    shapes: dict[int, list[SpikeShape]] = field(default_factory=dict)

    def observe(
        self, step: int, readings: Readings, recent: RecentRows, first_skipped: int | None = None
    ) -> list[Effect]:
        effects = IncidentTracker.observe(self, step, readings, recent, first_skipped)
        shape = None if self.open is None else self.open.shape(self.recoveries)
        if self.open is not None and shape is not None and shape.rows <= MAX_ROWS:
            self.shapes.setdefault(self.open.incident.number, []).append(shape)
        return effects


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--curves", type=Path, help="folder with labels.json, of recorded curves")
    parser.add_argument("--fit", action="store_true", help="fit the weights to seeds 0 to 6")
    options = parser.parse_args(arguments)
    if options.fit:
        weights = fit([case for seed, stretch in enumerate(STRETCHES) for case in on_suite(seed, stretch)])
        print("WEIGHTS = (" + ", ".join(f"{weight:.3g}" for weight in weights) + ")")
        return
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    suites = {"the messy suite": [case for seed in seeds for case in on_suite(seed)]}
    if options.curves is not None:
        suites["recorded curves"] = list(on_curves(options.curves))
    for line in tables(suites):
        print(line, flush=True)


def watch(rows: Rows) -> list[tuple[Incident, list[SpikeShape]]]:
    """The loss spikes of a curve, each with its shapes."""
    settings = DetectionSettings()
    engine = DetectionEngine(settings, Policy(mode=Mode.APPROVE))
    tracker = engine.incidents = WatchedTracker(settings)
    engine.set_restorable(range(0, int(rows.steps[-1]), CHECKPOINT_STEPS))
    effects = [effect for part in rows.split(1000) for effect in engine.feed(part)]
    incidents = {each.incident.number: each.incident for each in effects if isinstance(each, IncidentChanged)}
    return [(incidents[number], shapes) for number, shapes in tracker.shapes.items()]


def on_suite(seed: int, stretch: float = 1.0) -> Iterator[Case]:
    """Spikes and false incidents, which recover, and rises, which last."""
    for kind in KINDS:
        for norm in NORMS:
            for spikes in (True, False):
                run = MessyRun(kind, norm, seed, spikes=spikes, stretch=stretch)
                yield from (Case(False, shapes) for _, shapes in watch(run.rows()))
        for spikes in (True, False):
            for rise in RISES:
                run = MessyRun(kind, "none", seed, spikes=spikes, rise=rise, stretch=stretch)
                found = [(each.detected_step // run.stride - RISE_ROW, shapes) for each, shapes in watch(run.rows())]
                yield from [Case(True, shapes) for row, shapes in found if -3 <= row <= LATEST][:1]


def on_curves(folder: Path) -> Iterator[Case]:
    """A spike of a recorded curve lasted if it did not recover before the end, and the curve is no excerpt."""
    for curve in read_folder(folder):
        for incident, shapes in watch(curve.rows):
            is_cut_off = incident.end_step is None and curve.kind != "diverged"
            if incident.kind is not IncidentKind.NONFINITE and not is_cut_off:
                yield Case(incident.outcome is not Outcome.RECOVERED, shapes)


def fit(cases: Iterable[Case]) -> Floats:
    """Logistic regression on all rows, by Newton's method."""
    rows = [(each.features(), case.lasted) for case in cases for each in case.shapes]
    x, y = np.array([features for features, _ in rows]), np.array([lasted for _, lasted in rows], dtype=float)
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-x @ weights))
        curvature = (x * (p * (1 - p))[:, None]).T @ x + PENALTY * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, x.T @ (y - p) - PENALTY * weights)
    return weights


def tables(suites: dict[str, list[Case]]) -> Iterator[str]:
    columns = ("spikes of", "rows after detection", "still open", "lasted", "Brier score", "of the base rate")
    yield heading("Probability that a spike lasts, against the base rate", *columns)
    for name, cases in suites.items():
        for rows in ROWS_SHOWN:
            p, lasted = _answers(cases, (rows,))
            if len(p):
                rate = lasted.mean()
                scores = f"{np.mean((p - lasted) ** 2):.3f} | {rate * (1 - rate):.3f}"
                yield f"| {name} | {rows} | {len(p)} | {lasted.sum():.0f} = {100 * rate:.0f}% | {scores} |"
    yield heading("Reliability: what was said, and what came", "spikes of", "said", "times", "mean of it", "lasted")
    for name, cases in suites.items():
        p, lasted = _answers(cases, ROWS_SHOWN)
        for low, high in pairwise(BINS):
            chosen = (p >= low) & (p < high)
            if chosen.any():
                shares = f"{p[chosen].mean():.2f} | {lasted[chosen].mean():.2f}"
                yield f"| {name} | {low:g} to {high:g} | {chosen.sum()} | {shares} |"


def _answers(cases: Iterable[Case], rows: Iterable[int]) -> tuple[Floats, Floats]:
    """The probabilities said at these rows, and the outcomes (1: it lasted)."""
    said = [(p, case.lasted) for case in cases for row in rows if (p := case.at(row)) is not None]
    return np.array([p for p, _ in said]), np.array([lasted for _, lasted in said], dtype=float)


if __name__ == "__main__":
    main()
