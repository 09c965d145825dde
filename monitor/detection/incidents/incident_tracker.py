"""The incidents of a run: the open one, the one whose rollback is under verification, and a replay that does not match.

At most one of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lossguard.vocabulary.metrics import is_advisory
from lossguard.vocabulary.protocol import MAX_SHORT_TEXT
from lossguard.vocabulary.source_facts import EVERY_STEP, SourceFacts
from lossguard.vocabulary.states import IncidentKind, IncidentState, Outcome
from lossguard.vocabulary.wire import Notice
from monitor.detection.effects import Effect, Incident, IncidentChanged, IncidentEvent, Outlier, Proposal, advance
from monitor.detection.encoding import dump
from monitor.detection.incidents.open_incident import (
    OpenIncident,
    Readings,
    alarming_signal,
    closed_incident,
    without_advisory,
)
from monitor.detection.incidents.opening import CAP, describe_cap, open_incident, plateau
from monitor.detection.incidents.replay_mismatch import Finding, describe_mismatch, notice_of, replay_mismatch
from monitor.detection.rows import Bools
from monitor.detection.scoring.scored_rows import RecentRows, ScoredRows
from monitor.detection.settings import DetectionSettings

MAX_RECOVERIES = 16
"""Spikes that recovered by themselves, of which the run remembers how: the last ones."""
MAX_NOTICES = 2
"""Notices of a replay mismatch that is open: the newest."""


@dataclass(slots=True)
class IncidentTracker:
    """Opens, follows and closes incidents. Methods that need an open incident say "the open incident"."""

    settings: DetectionSettings
    num_incidents: int = 0
    open: OpenIncident | None = None
    under_verification: Incident | None = None
    """The incident behind the rollback that was applied and is not verified yet."""
    pending_outlier: Outlier | None = None
    """A single row out of band, judged at the next row."""
    first_onset_step: int | None = None
    """Onset of the incident that the next one escalates from."""
    plateau_step: int = 0
    """The step of the lowest level that the last plateau advisory was about."""
    mismatch: Incident | None = None
    """Recomputed steps that differ from their record. No policy answers it, and it neither hides nor delays others."""
    mismatch_since: int = 0
    """Step whose restore led to the mismatch: what was saved after it may be wrong, also before the loss shows it."""
    mismatch_reasons: int = 3
    """The number of its reasons that are about the first finding."""
    mismatch_notices: list[str] = field(default_factory=list)
    """Sentences that the trainer logs about the mismatch: one for each finding that it did not report itself."""
    recoveries: list[tuple[int, float]] = field(default_factory=list)
    """Rows and size (in standard deviations of the noise) of the last loss spikes that recovered by themselves."""
    source: SourceFacts = EVERY_STEP
    """Source of the rows: how they are made. Stored with the detectors."""

    def take_number(self) -> int:
        """The number of the next incident of the run."""
        self.num_incidents += 1
        return self.num_incidents

    # Rows

    def needs_every_row(self) -> bool:
        return self.open is not None or self.pending_outlier is not None

    def is_disturbed(self) -> bool:
        """An incident is open that is more than an early warning."""
        return self.open is not None and self.open.incident.kind is not IncidentKind.EARLY_WARNING

    def plateau_rows(self, scored: ScoredRows) -> Bools:
        """Return bool[N]: True for rows so far from the lowest loss level that the plateau advisory is due."""
        loss = scored.scores.get("loss")
        if loss is None:
            return np.zeros(len(scored.rows), dtype=bool)
        due: Bools = self._is_plateau(scored.rows.steps, loss.low_step)
        return due

    def is_plateau(self, step: int, readings: Readings) -> bool:
        """True if the plateau advisory is due at this row."""
        loss = readings.get("loss")
        return loss is not None and bool(self._is_plateau(step, loss.low_step))

    def _is_plateau(self, steps: Any, low_steps: Any) -> Any:
        """Return a bool for one row, bool[N] for columns: True where the plateau advisory is due."""
        age, least = steps - low_steps, self.settings.plateau_steps
        return (least > 0) & (age >= least) & (low_steps > self.plateau_step)

    def report_plateau(self, step: int, readings: Readings) -> list[Effect]:
        """Report the plateau advisory, once for each lowest level; nothing is done about it."""
        if not self.is_plateau(step, readings):
            return []
        self.plateau_step = readings["loss"].low_step
        return [IncidentChanged(plateau(self.take_number(), step, readings["loss"]))]

    def superseded(self, readings: Readings, first_skipped: int | None = None) -> tuple[Outcome, str] | None:
        """Return the open incident's end if this row begins a new or more severe one, else None.

        `first_skipped`: see `observe`.
        """
        assert self.open is not None
        if self.open.incident.kind is IncidentKind.EARLY_WARNING:
            judged = without_advisory(readings)
            if (signal := alarming_signal(judged)) is not None:
                return Outcome.ONGOING, f"Now {signal} is out of band too."
            is_capped = first_skipped is not None and judged
            return (Outcome.ONGOING, "Skipped updates have reached their cap.") if is_capped else None
        if self.open.is_realarmed(readings, self.settings):
            return Outcome.ONGOING, "A new alarm began before the signal had fully recovered."
        reason = self.open.escalation(readings)
        if reason is None:
            return None
        self.first_onset_step = self.open.first_onset_step
        return Outcome.DIVERGED, reason

    def observe(
        self, step: int, readings: Readings, recent: RecentRows, first_skipped: int | None = None
    ) -> list[Effect]:
        """Take in the next row: an incident begins or continues, or a single row out of band was a hard batch.

        `first_skipped`: the step of the first skipped update, if their number has reached the cap at this row: that is
        an incident, of the signal that lies farthest out; of an open incident it is a reason, once.
        """
        if self.open is None:
            return self._open(step, readings, recent, first_skipped)
        has_changed = self.open.observe(step, readings)
        has_changed |= self.open.note_probability(self.recoveries)
        effects: list[Effect] = [IncidentChanged(self.open.incident)] if has_changed else []
        if first_skipped is None or any(reason.startswith(CAP) for reason in self.open.incident.reasons):
            return effects
        return [self.add_reason(describe_cap(first_skipped))]

    def _open(self, step: int, readings: Readings, recent: RecentRows, first_skipped: int | None) -> list[Effect]:
        signal = alarming_signal(readings)
        if first_skipped is not None and readings and (signal is None or is_advisory(signal)):
            judged = without_advisory(readings) or readings
            signal = max(judged, key=lambda name: judged[name].z)
        outlier, self.pending_outlier = self.pending_outlier, None
        first_onset_step, self.first_onset_step = self.first_onset_step, None
        if signal is None:
            effects: list[Effect] = [] if outlier is None else [outlier]
            signal = next((name for name, one in without_advisory(readings).items() if one.single >= 1.0), None)
            if signal is None:
                return effects
            if not recent.has_precursor(signal):
                self.pending_outlier = Outlier(step, signal, readings[signal].value, readings[signal].z)
                return effects
        self.open = open_incident(self.take_number(), step, signal, readings, recent, self.source, first_skipped)
        if first_onset_step is not None:
            self.open.first_onset_step = first_onset_step
        self.open.note_probability(self.recoveries)
        return [IncidentChanged(self.open.incident)]

    # Transitions

    def treat(self) -> list[Effect]:
        """An intervention was ordered for the open incident, if there is one."""
        return [] if self.open is None else [self._advance(self.open, IncidentEvent.TREAT)]

    def relapse(self) -> list[Effect]:
        """The order for the open incident came to nothing: it needs another decision."""
        if self.open is None or self.open.incident.state is not IncidentState.TREATED:
            return []
        return [self._advance(self.open, IncidentEvent.RELAPSE)]

    def _advance(self, current: OpenIncident, event: IncidentEvent) -> Effect:
        current.incident = replace(current.incident, state=advance(current.incident.state, event))
        return IncidentChanged(current.incident)

    def add_reason(self, reason: str) -> Effect:
        """Add a reason to the open incident."""
        assert self.open is not None
        incident = self.open.incident
        self.open.incident = replace(incident, reasons=[*incident.reasons, reason])
        return IncidentChanged(self.open.incident)

    def note_proposal(self, proposal: Proposal, reason: str) -> Effect:
        """Record what the policy would do about the open incident, and why."""
        assert self.open is not None
        self.open.incident = replace(self.open.incident, proposal=self.open.incident.proposal or proposal)
        return self.add_reason(reason)

    def wait(self, reasons: Sequence[str], afterwards: str) -> list[Effect]:
        """Record the reasons of a decision to wait if they are new; `afterwards`: if the incident then ends."""
        assert self.open is not None
        before, self.open.wait_reasons = self.open.wait_reasons, [reasons[0], afterwards]
        return [] if before[:1] == [reasons[0]] else [self.add_reason(" ".join(reasons))]

    def close(self, outcome: Outcome, reason: str, *, superseded: bool = False) -> Effect:
        """End the open incident. `superseded`: the next one begins at this row."""
        assert self.open is not None
        if outcome is Outcome.RECOVERED and (recovery := self.open.recovery()) is not None:
            self.recoveries = [*self.recoveries, recovery][-MAX_RECOVERIES:]
        incident, self.open = self.open.closed(outcome, reason), None
        return IncidentChanged(replace(incident, superseded_by=self.num_incidents + 1) if superseded else incident)

    def begin_verification(self) -> list[Effect]:
        """The rollback for the open incident, if there is one, was applied."""
        if self.open is None:
            return []
        self.under_verification = replace(self.open.incident, end_step=self.open.last_step_out_of_band)
        self.open = None
        return [IncidentChanged(self.under_verification)]

    def end_verification(self, outcome: Outcome, reason: str) -> list[Effect]:
        """Close the incident under verification, if there is one."""
        incident = self.under_verification
        if incident is None:
            return []
        self.under_verification = None
        return [IncidentChanged(replace(closed_incident(incident, 0, outcome, reason), end_step=incident.end_step))]

    # Recomputed steps

    def report_mismatch(self, finding: Finding) -> list[Effect]:
        """Report recomputed steps that differ from their record: an incident, or further reasons of the open one.

        It keeps those of the first finding and of the newest: a run that crashes and resumes all day stays small.
        """
        if self.mismatch is None:
            self.mismatch, self.mismatch_notices = replay_mismatch(self.take_number(), finding), []
            self.mismatch_since, self.mismatch_reasons = finding.restored_step, len(self.mismatch.reasons)
        else:
            first = self.mismatch.reasons[: self.mismatch_reasons]
            self.mismatch = replace(self.mismatch, reasons=[*first, *describe_mismatch(finding)])
        self.mismatch_notices = [*filter(None, (*self.mismatch_notices, notice_of(finding)))][-MAX_NOTICES:]
        return [IncidentChanged(self.mismatch)]

    def close_mismatch(self, outcome: Outcome, reason: str) -> list[Effect]:
        """Close the replay mismatch. Raises ValueError when none is open."""
        incident = self.mismatch
        if incident is None:
            raise ValueError("no replay mismatch is open")
        self.mismatch = None
        return [IncidentChanged(closed_incident(incident, incident.detected_step, outcome, reason))]

    def discard_mismatch(self, step: int) -> list[Effect]:
        """Discard the mismatch if the run goes back to `step`: later steps are no longer part of the run."""
        if self.mismatch is None or step > self.mismatch_since:
            return []
        reason = f"The run went back to step {step}: these steps are computed again."
        return self.close_mismatch(Outcome.RECOVERED, reason)

    def notices(self) -> list[Notice]:
        """Return sentences that the trainer logs about the open replay mismatch."""
        if self.mismatch is None:
            return []
        texts = [f"incident {self.mismatch.number}: {text}" for text in self.mismatch_notices]
        return [Notice(key=text[:MAX_SHORT_TEXT], text=text) for text in texts]

    # Persistence

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are not empty: of most runs, few."""
        parts = dump(self, without=("settings", "source"))
        return {name: part for name, part in parts.items() if part not in (None, [])}
