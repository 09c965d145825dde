"""Labelled curves, and the score of alarms on them: recall of onsets, and false alarms per 10,000 clean rows.

Alarms closer than 20 rows are one episode. An onset is found when an episode starts at most 12 rows after it and ends
no earlier than 2 rows before it. An episode near an ambiguous step is ignored; any other one is a false alarm.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monitor.backtesting.backtest import backtest_rows, read_curve
from monitor.detection import Rows

EPISODE_GAP, MAX_DELAY, MAX_LEAD = 20, 12, 2  # rows


@dataclass(frozen=True, slots=True)
class LabelledCurve:
    name: str
    rows: Rows
    kind: str
    onsets: Sequence[int]
    ambiguous: Sequence[int]

    def row_of(self, step: int) -> int:
        return int(np.argmin(np.abs(self.rows.steps - step)))


@dataclass(frozen=True, slots=True)
class Score:
    """Counts over one curve or several; only clean curves count false alarms and rows."""

    found: int = 0
    onsets: int = 0
    false: int = 0
    rows: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.found + other.found, self.onsets + other.onsets, self.false + other.false, self.rows + other.rows
        )

    @property
    def recall(self) -> float:
        return self.found / max(self.onsets, 1)

    def percent(self) -> str:
        return f"{self.found}/{self.onsets} = {100 * self.recall:.0f}%"

    @property
    def rate(self) -> float:
        """False alarms per 10,000 clean rows."""
        return 1e4 * self.false / max(self.rows, 1)


def read_folder(folder: Path) -> list[LabelledCurve]:
    """The curves that `labels.json` of the folder names, as far as their files exist."""
    names: dict[str, Any] = json.loads((folder / "labels.json").read_text())
    return [labelled_curve(folder / f"{name}.csv") for name in names if (folder / f"{name}.csv").exists()]


def labelled_curve(path: Path) -> LabelledCurve:
    """The curve of a file, with its labels in the `labels.json` beside it, if there are any. Raises CurveError."""
    labels = path.parent / "labels.json"
    known = json.loads(labels.read_text()).get(path.stem, {}) if labels.exists() else {}
    kind, onsets, ambiguous = known.get("kind", "unlabelled"), known.get("onsets", []), known.get("ambiguous", [])
    return LabelledCurve(path.stem, read_curve(path), kind, onsets, ambiguous)


def episodes(curve: LabelledCurve, alarm_steps: Iterable[int]) -> list[tuple[int, int]]:
    """The first and the last row of each group of alarms."""
    found: list[tuple[int, int]] = []
    for row in sorted(curve.row_of(step) for step in alarm_steps):
        if found and row - found[-1][1] < EPISODE_GAP:
            found[-1] = found[-1][0], row
        else:
            found.append((row, row))
    return found


def score(curve: LabelledCurve, alarm_steps: Iterable[int]) -> Score:
    groups = episodes(curve, alarm_steps)
    onsets = [curve.row_of(step) for step in curve.onsets]
    found = [any(a <= onset + MAX_DELAY and b >= onset - MAX_LEAD for a, b in groups) for onset in onsets]
    marks = onsets + [curve.row_of(step) for step in curve.ambiguous]
    false = [(a, b) for a, b in groups if not any(a <= mark + MAX_DELAY and b >= mark - MAX_DELAY for mark in marks)]
    clean = curve.kind == "clean"
    return Score(sum(found), len(onsets), len(false) if clean else 0, len(curve.rows) if clean else 0)


def our_alarms(curve: LabelledCurve, which: str = "detected_step") -> list[int]:
    """The steps of our incidents; `which`: `detected_step` or `onset_step`."""
    return [int(incident[which]) for incident in backtest_rows(curve.rows)["incidents"]]


def total(curves: Iterable[LabelledCurve], alarms: Callable[[LabelledCurve], Iterable[int]]) -> Score:
    return sum((score(curve, alarms(curve)) for curve in curves), Score())
