"""All signal detectors of a segment with their recent past: the part of a watch that forks with the run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitor.detection.encoding import pack, unpack
from monitor.detection.rows import Bools, Floats, Ints, Rows
from monitor.detection.scoring.detector import Scores, SignalDetector
from monitor.detection.scoring.readings import LOOK_BACK, Reading, Trail
from monitor.detection.scoring.signals import SIGNALS
from monitor.detection.settings import DetectionSettings

SHIFTS = frozenset({"learning_rate", "batch_size", "data_mix", "resume"})
"""Declared events that change the curve. Any other kind (a note, say) is only written down."""
RATE_JUMP = 0.25
"""A change of log(lr) from row to row (a factor of 1.28) that no smooth schedule makes after its first steps."""


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Rows with their scores. `steps`, `z` and `values` begin with the `lead` rows before them."""

    rows: Rows
    scores: Mapping[str, Scores]
    steps: Ints
    z: Mapping[str, Floats]
    values: Mapping[str, Floats]
    lead: int

    def alarms(self) -> Bools:
        """Rows that need a closer look, whatever the state of affairs."""
        alarm = np.zeros(len(self.rows), dtype=bool)
        for score in self.scores.values():
            alarm |= score.broken | (score.evidence >= 1.0) | (score.single >= 1.0) | (score.drift >= 1.0)
        return alarm

    def readings(self, k: int) -> dict[str, Reading]:
        """Row k, signal by signal; a signal that was not reported is left out."""
        return {
            name: Reading(
                float(self.rows.metrics[name][k]),
                float(score.z[k]),
                float(score.evidence[k]),
                float(score.single[k]),
                float(score.drift[k]),
                float(score.expected[k]),
                float(score.scale[k]),
                int(score.low_step[k]),
                bool(score.broken[k]),
            )
            for name, score in self.scores.items()
            if self.rows.present[name][k]
        }

    def trail(self, k: int) -> Trail:
        end = self.lead + k + 1
        part = slice(max(end - LOOK_BACK, 0), end)
        z = {name: column[part] for name, column in self.z.items()}
        return Trail(self.steps[part], z, {name: column[part] for name, column in self.values.items()})


class DetectorSet:
    def __init__(self, settings: DetectionSettings) -> None:
        self.detectors = {name: SignalDetector(signal, settings) for name, signal in SIGNALS.items()}
        self.declared: list[int] = []  # steps of declared events still to come
        self.log_lr: float | None = None  # the last learning rate that was reported
        self.steps = np.empty(0, dtype=np.int64)
        self.z: dict[str, Floats] = {name: np.empty(0) for name in SIGNALS}
        self.values: dict[str, Floats] = {name: np.empty(0) for name in SIGNALS}

    def declare(self, step: int, kind: str) -> None:
        """From `step` on the signals have a new normal, when the event is of a kind that changes the curve."""
        if kind in SHIFTS:
            self.declared = sorted({*self.declared, step})

    def feed(self, rows: Rows) -> Iterator[ScoredRows]:
        """Score the rows, cut where something was declared or the learning rate jumps: there the signals learn anew."""
        if len(rows) == 0:
            return
        ahead = np.array(self.declared, dtype=np.int64)
        due = ahead <= rows.steps[-1]
        cuts = sorted({*np.searchsorted(rows.steps, ahead[due]).tolist(), *self._rate_jumps(rows)})
        self.declared = ahead[~due].tolist()
        for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            if end == start:
                continue
            if start in cuts:
                for detector in self.detectors.values():
                    detector.shift()
            yield self._judge(rows[start:end] if cuts else rows)

    def _rate_jumps(self, rows: Rows) -> list[int]:
        """Rows whose learning rate differs from the last one known by more than RATE_JUMP."""
        known = rows.present.get("lr")
        if known is None:
            return []
        lr = rows.metrics["lr"]
        where = np.flatnonzero(known & np.isfinite(lr) & (lr > 0))
        if len(where) == 0:
            return []
        logs = np.log(lr[where])
        before = np.concatenate([[logs[0] if self.log_lr is None else self.log_lr], logs[:-1]])
        jumps = np.abs(logs - before) > RATE_JUMP
        self.log_lr = float(logs[-1])
        return [int(k) for k in where[jumps]]

    def _judge(self, rows: Rows) -> ScoredRows:
        known = [name for name in self.detectors if name in rows.metrics]
        steps = np.concatenate([self.steps, rows.steps])
        before = steps[-len(rows) - 1 : -1] if len(self.steps) else np.append(steps[0] - 1, steps[:-1])
        gaps = rows.steps - before
        scores = {
            name: self.detectors[name].feed(rows.metrics[name], rows.present[name], rows.steps, gaps) for name in known
        }
        nothing = np.zeros(len(rows))
        new = {name: scores[name].z if name in scores else nothing for name in self.z}
        z = {name: np.concatenate([past, new[name]]) for name, past in self.z.items()}
        missing = np.full(len(rows), np.nan)
        values = {name: np.concatenate([past, rows.metrics.get(name, missing)]) for name, past in self.values.items()}
        judged = ScoredRows(rows, scores, steps, z, values, len(self.steps))
        self.steps = steps[-LOOK_BACK:]
        self.z = {name: column[-LOOK_BACK:] for name, column in z.items()}
        self.values = {name: column[-LOOK_BACK:] for name, column in values.items()}
        return judged

    def state_dict(self) -> dict[str, Any]:
        return {
            "detectors": {name: detector.state_dict() for name, detector in self.detectors.items()},
            "declared": list(self.declared),
            "log_lr": self.log_lr,
            "steps": self.steps.tolist(),
            "z": {name: pack(column) for name, column in self.z.items()},
            "values": {name: pack(column) for name, column in self.values.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, detector in self.detectors.items():
            detector.load_state_dict(state["detectors"][name])
        self.declared = list(state["declared"])
        self.log_lr = state["log_lr"]
        self.steps = np.array(state["steps"], dtype=np.int64)
        self.z = {name: unpack(text) for name, text in state["z"].items()}
        self.values = {name: unpack(text) for name, text in state["values"].items()}
