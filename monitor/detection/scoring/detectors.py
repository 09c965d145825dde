"""The signal detectors of a segment with their recent rows: the part of the detection that forks with the run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from lossguard.vocabulary.metrics import SKIPPED, is_advisory
from lossguard.vocabulary.protocol import LEVEL_ACCEPTED
from lossguard.vocabulary.source_facts import EVERY_STEP, SourceFacts
from monitor.detection.encoding import dump, load, pack, restore, unpack
from monitor.detection.rows import Row, Rows
from monitor.detection.scoring.corrections import SkippedUpdates, SourceCorrection
from monitor.detection.scoring.detector import SignalDetector
from monitor.detection.scoring.scored_rows import MAX_RECENT_ROWS, RecentRows, RecentRowsBuffer, ScoredRow, ScoredRows
from monitor.detection.scoring.signals import MAX_ADVISORY, SIGNALS, parameters
from monitor.detection.scoring.value_scores import feed_value
from monitor.detection.settings import DetectionSettings

SHIFT_EVENTS = frozenset({"learning_rate", "batch_size", "data_mix", "resume"})
"""Declared events that change the curve. Any other kind (a note, say) is only stored."""
LR_JUMP = 0.25
"""A change of log(lr) from row to row (a factor of 1.28) that no smooth schedule makes after its first steps."""


VERSION = 1
"""Version of the stored state. One of another version is not read: the detection is rebuilt from the stored rows."""


class DetectorSet:
    """One detector per signal; of an advisory signal from the first row that has it. The state is exact."""

    def __init__(self, settings: DetectionSettings, signals: Iterable[str] = tuple(SIGNALS)) -> None:
        self.settings = settings
        self.by_signal = {name: SignalDetector(parameters(name), settings) for name in signals}
        self.declared: list[int] = []  # steps of declared events still to come
        self.accepted: list[int] = []  # steps before which a person accepted the level
        self.log_lr: float | None = None  # the last learning rate that was reported
        self._recent = RecentRowsBuffer(RecentRows.none(list(self.by_signal)))
        self.source = SourceCorrection()
        self.skipped = SkippedUpdates()

    @property
    def recent(self) -> RecentRows:
        """The last rows."""
        return self._recent.rows

    @recent.setter
    def recent(self, rows: RecentRows) -> None:
        self._recent.rows = rows

    @property
    def last_step(self) -> int:
        """The step of the last row; -1 before the first one."""
        return -1 if self._recent.last_step is None else self._recent.last_step

    @classmethod
    def at(
        cls,
        settings: DetectionSettings,
        state: Mapping[str, Any] | None,
        declared: Sequence[tuple[int, str]],
        earlier: Iterable[Rows],
    ) -> "DetectorSet":
        """Restore from a snapshot, None for fresh detectors: see `DetectionEngine.fork`."""
        detectors = cls(settings)
        new = frozenset() if state is None else detectors.load_state_dict(state)
        if new:
            detectors.relearn(new, earlier, declared)
        for step, kind in declared:
            if step > detectors.last_step:
                detectors.declare(step, kind)
        return detectors

    def declare(self, step: int, kind: str) -> None:
        """Learn the signals' normal anew from `step` on, if the event is of a kind that changes the curve."""
        if kind in SHIFT_EVENTS:
            self.declared = sorted({*self.declared, step})
        if kind == LEVEL_ACCEPTED:
            self.accepted = sorted({*self.accepted, step})

    def set_source(self, facts: SourceFacts) -> None:
        """Set how the next rows are made. Where a smoothing is undone from now on, learn the noise of the loss anew."""
        before, self.source = self.source, replace(self.source, facts=facts)
        if facts.smoothing != before.facts.smoothing and "loss" in self.by_signal:
            self.by_signal["loss"] = SignalDetector(SIGNALS["loss"], self.settings)

    def feed(self, rows: Rows) -> Iterator[ScoredRows]:
        """Score the rows, split where something was declared or the learning rate jumps: there levels are relearnt."""
        if len(rows) == 0:
            return
        rows = self.source.apply(rows)
        self._begin_advisory(rows)
        declared, self.declared = _due(self.declared, rows)
        accepted, self.accepted = _due(self.accepted, rows)
        shifts = {*declared, *self._lr_jumps(rows)}
        cuts = sorted({*shifts, *accepted})
        for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            if end == start:
                continue
            if start in accepted:
                self._accept()
            if start in shifts:
                for detector in self.by_signal.values():
                    detector.shift()
            yield self._score(rows[start:end] if cuts else rows)

    def feed_row(self, row: Row) -> ScoredRow | None:
        """Score a single row. None, and nothing has changed, where it is no plain one: then `feed` has to."""
        log_lr = self._log_lr(row)
        if not self._is_plain(row, log_lr):
            return None
        self.log_lr, self.skipped.last_step = log_lr, row.step
        values, last_step = row.values, self._recent.last_step
        gap = 1 if last_step is None else row.step - last_step
        readings, is_alarm = {}, False
        for name, detector in self.by_signal.items():
            if name in values:
                readings[name] = one = feed_value(detector, values[name], row.step, gap)
                is_alarm = is_alarm or one.is_notable(is_advisory=detector.signal.is_advisory)
        self._recent.add(row.step, {name: one.z for name, one in readings.items()}, values)
        return ScoredRow(row, readings, is_alarm)

    def _is_plain(self, row: Row, log_lr: float | None) -> bool:
        """True if nothing but the values of the signals matters."""
        values, facts, before = row.values, self.source.facts, self.log_lr
        if facts.nan_filtered or (facts.smoothing and "loss" in values):
            return False
        if log_lr is not None and before is not None and abs(log_lr - before) > LR_JUMP:
            return False
        if (self.declared and self.declared[0] <= row.step) or (self.accepted and self.accepted[0] <= row.step):
            return False
        others = values.keys() - self.by_signal.keys()
        is_new_signal = any(map(is_advisory, others)) and self._num_free() > 0
        return not is_new_signal and not values.get(SKIPPED, 0.0) > 0.0

    def _log_lr(self, row: Row) -> float | None:
        lr = row.values.get("lr", 0.0)
        return float(np.log(lr)) if 0.0 < lr < inf else self.log_lr

    def _begin_advisory(self, rows: Rows) -> None:
        """A detector for each advisory signal that these rows are the first to report."""
        first_rows = {
            name: int(present.argmax())
            for name, present in rows.present.items()
            if name not in self.by_signal and is_advisory(name) and present.any()
        }
        if not first_rows or "loss" not in self.by_signal:  # a learner of other signals
            return
        num_free = self._num_free()
        steps, z, values = self.recent.steps, {**self.recent.z}, {**self.recent.values}
        for name in sorted(first_rows, key=lambda name: (first_rows[name], name))[: max(num_free, 0)]:
            self.by_signal[name] = SignalDetector(parameters(name), self.settings)
            z[name], values[name] = np.zeros(len(steps)), np.full(len(steps), np.nan)
        self.recent = RecentRows(steps, z, values)

    def _num_free(self) -> int:
        """Advisory signals that may still begin."""
        return MAX_ADVISORY - sum(detector.signal.is_advisory for detector in self.by_signal.values())

    def is_raised(self) -> bool:
        """A guarded signal is out of band since an alarm, and nobody has decided about it."""
        return any(each.is_raised() for each in self.by_signal.values() if each.signal.is_guarded)

    def answer(self) -> None:
        """A person has decided about what is out of band: it becomes normal if it lasts."""
        for detector in self.by_signal.values():
            detector.answer()

    def _accept(self) -> None:
        """A person says that the present level of the guarded signals is normal."""
        for name, detector in self.by_signal.items():
            if detector.signal.is_guarded:
                detector.accept(self.recent.values[name])
                # an onset is not dated back over the accepted rows
                self.recent = replace(self.recent, z={**self.recent.z, name: np.zeros(len(self.recent.steps))})

    def learn(self, history: Iterable[Rows]) -> None:
        """Feed rows whose scores are not needed."""
        for rows in history:
            for _ in self.feed(rows):
                pass

    def _lr_jumps(self, rows: Rows) -> list[int]:
        """Rows whose learning rate differs from the last one known by more than LR_JUMP."""
        known = rows.present.get("lr")
        if known is None:
            return []
        lr = rows.metrics["lr"]
        where = np.flatnonzero(known & np.isfinite(lr) & (lr > 0))
        if len(where) == 0:
            return []
        logs = np.log(lr[where])
        before = np.concatenate([[logs[0] if self.log_lr is None else self.log_lr], logs[:-1]])
        jumps = np.abs(logs - before) > LR_JUMP
        self.log_lr = float(logs[-1])
        return [int(k) for k in where[jumps]]

    def _score(self, rows: Rows) -> ScoredRows:
        rows, skips = self.skipped.apply(rows)
        recent, num_before = self.recent, len(self.recent.steps)
        steps = np.concatenate([recent.steps, rows.steps])
        before = steps[-len(rows) - 1 : -1] if num_before else np.append(steps[0] - 1, steps[:-1])
        gaps = rows.steps - before
        scores = {
            name: detector.feed(rows.metrics[name], rows.present[name], rows.steps, gaps)
            for name, detector in self.by_signal.items()
            if name in rows.metrics
        }
        nothing, missing = np.zeros(len(rows)), np.full(len(rows), np.nan)
        z = {
            name: np.concatenate([past, scores[name].z if name in scores else nothing])
            for name, past in recent.z.items()
        }
        values = {name: np.concatenate([past, rows.metrics.get(name, missing)]) for name, past in recent.values.items()}
        context = RecentRows(steps, z, values)
        self.recent = context[-MAX_RECENT_ROWS:]
        return ScoredRows(rows, scores, context, num_before, skips)

    def relearn(
        self, signals: Iterable[str], history: Iterable[Rows], declared: Sequence[tuple[int, str]] = ()
    ) -> None:
        """Replace the detectors of these signals by ones that have learnt from `history` alone.

        `history`: the rows that the other detectors saw last; `declared`: (step, kind) of the events announced on them.
        """
        learner = DetectorSet(self.settings, signals)
        learner.set_source(self.source.facts)
        for step, kind in declared:
            learner.declare(step, kind)
        learner.learn(history)
        self.by_signal |= learner.by_signal
        if np.array_equal(learner.recent.steps, self.recent.steps):
            z, values = {**self.recent.z, **learner.recent.z}, {**self.recent.values, **learner.recent.values}
            self.recent = RecentRows(self.recent.steps, z, values)

    def state_dict(self) -> dict[str, Any]:
        source = {"source": self.source.to_dict()} if self.source.facts != EVERY_STEP else {}
        skipped = {"skipped": dump(self.skipped)} if self.skipped.is_needed() else {}
        return (
            {
                "version": VERSION,
                "signals": {name: detector.state_dict() for name, detector in self.by_signal.items()},
                "declared": list(self.declared),
                "accepted": list(self.accepted),
                "log_lr": self.log_lr,
                "recent": {
                    "steps": self.recent.steps.tolist(),
                    "z": {name: pack(column) for name, column in self.recent.z.items()},
                    "values": {name: pack(column) for name, column in self.recent.values.items()},
                },
            }
            | source
            | skipped
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> frozenset[str]:
        """Load a state of this version. Returns the signals that it has no detector for.

        Their detectors are fresh: see `relearn`.
        """
        state = state if state.get("version") == VERSION else {}
        stored = state.get("signals") or {}
        names = [*self.by_signal, *(name for name in stored if is_advisory(name))]
        self.by_signal = {name: SignalDetector(parameters(name), self.settings) for name in names}
        for name, detector in self.by_signal.items():
            if stored.get(name) is not None:
                detector.load_state_dict(stored[name])
        self.declared = list(state.get("declared") or ())
        self.accepted = list(state.get("accepted") or ())
        self.log_lr = restore(float, state.get("log_lr"))
        self.source = restore(SourceCorrection.from_dict, state.get("source")) or SourceCorrection()
        self.skipped = load(SkippedUpdates, state.get("skipped") or {})
        signals = list(self.by_signal)
        self.recent = restore(lambda recent: _recent(recent, signals), state.get("recent")) or RecentRows.none(signals)
        if self.skipped.last_step is None and len(self.recent.steps):  # not stored where nothing was skipped
            self.skipped.last_step = int(self.recent.steps[-1])
        return frozenset(name for name in names if stored.get(name) is None and not is_advisory(name))


def _due(steps: Sequence[int], rows: Rows) -> tuple[list[int], list[int]]:
    """The rows at which these steps take effect, and the steps still to come."""
    ahead = np.array(steps, dtype=np.int64)
    due = ahead <= rows.steps[-1]
    return np.searchsorted(rows.steps, ahead[due]).tolist(), ahead[~due].tolist()


def _recent(state: Mapping[str, Any], signals: Sequence[str]) -> RecentRows:
    """The stored rows; of a signal that is new, as if it had not been reported on them."""
    steps = np.array(state["steps"], dtype=np.int64)
    nothing, missing = np.zeros(len(steps)), np.full(len(steps), np.nan)
    z = {name: unpack(state["z"][name]) if name in state["z"] else nothing for name in signals}
    values = {name: unpack(state["values"][name]) if name in state["values"] else missing for name in signals}
    return RecentRows(steps, z, values)
