"""Small stored runs with one trouble at step 1000, for the tests of the scorecard."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from db.scorecard import ScorecardRun, StoredIncident, StoredSegment
from lossguard.vocabulary.protocol import plain_json
from lossguard.vocabulary.states import IncidentKind, IncidentState, InterventionState, OrderKind, Outcome
from monitor.detection import Incident, Intervention
from monitor.detection.effects import Proposal
from monitor.detection.scorecard.scored_run import ScoredRun, ScoredSite, is_scored, score_run
from monitor.detection.scorecard.sites import RunRecord
from monitor.detection.scorecard.totals import Totals, total

ONSET, DETECTED, DECIDED = 1000, 1001, 1017
PROPOSED = Proposal(OrderKind.ROLLBACK, DECIDED, 900, 999, 1019)
"""Twenty batches skipped."""


def incident(number: int = 1, **changes: Any) -> Incident:
    """A loss spike that recovered at step 1040, about which the policy would have rolled back."""
    values: dict[str, Any] = {
        "number": number,
        "kind": IncidentKind.LOSS_SPIKE,
        "state": IncidentState.CLOSED,
        "signal": "loss",
        "onset_step": ONSET,
        "detected_step": DETECTED,
        "peak_step": ONSET + 3,
        "peak_value": 5.0,
        "end_step": 1040,
        "score": 3.0,
        "expected": 2.0,
        "scale": 0.02,
        "outcome": Outcome.RECOVERED,
        "proposal": PROPOSED,
    }
    return Incident(**values | changes)


STILL_BAD: dict[str, Any] = {"state": IncidentState.OPEN, "outcome": Outcome.ONGOING, "end_step": None}
"""An incident that is not over."""


def intervention(number: int = 1, **changes: Any) -> Intervention:
    """The same rollback, proposed to a person in approve mode."""
    values: dict[str, Any] = {
        "number": number,
        "incident": 1,
        "kind": OrderKind.ROLLBACK,
        "state": InterventionState.PROPOSED,
        "attempt": 1,
        "rewind_to": 900,
        "skip_from": 999,
        "skip_to": 1019,
        "lr_scale": None,
        "decided_step": DECIDED,
        "verify_at": 1092,
        "site_start": ONSET,
        "mode": "approve",
    }
    return Intervention(**values | changes)


def segment(number: int = 0, fork: int = 0, last: int | None = 3000, intervention: int | None = None) -> StoredSegment:
    return StoredSegment(number, fork, last, intervention)


def stored_run(*incidents: Incident, interventions: list[Intervention] | None = None, **changes: Any) -> ScorecardRun:
    """A run in observe mode that finished at step 3000, 3.6 s a step on 10 devices: 0.01 GPU-hours a step."""
    values: dict[str, Any] = {
        "id": "r1",
        "project": "gpt",
        "name": None,
        "state": "finished",
        "policy": {"mode": "observe", "name": "adaptive"},
        "capabilities": ["rollback"],
        "config": {"world_size": 10},
        "devices": ["cpu"],
        "num_steps": 3001,
        "step_seconds": 3.6,
        "segments": [segment()],
        "incidents": [StoredIncident(0, plain_json(asdict(each))) for each in incidents],
        "interventions": [plain_json(asdict(each)) for each in interventions or []],
    }
    return ScorecardRun(**values | changes)


def only_site(run: ScorecardRun) -> ScoredSite:
    """The one site of the run."""
    (site,) = score_run(run).sites
    return site


HOLD = Proposal(OrderKind.HOLD, DECIDED, None, None, None)
RESTARTED = [segment(last=1500), segment(1, 900, 3000)]


def six_runs() -> Totals:
    """One false rollback, one false hold, one rollback that a person did too, one death that the policy slept through,
    one quiet recovery, and one incident that goes on."""
    return total(
        score(
            [
                stored_run(incident()),
                stored_run(incident(proposal=HOLD), step_seconds=None),
                stored_run(incident(**STILL_BAD), segments=RESTARTED),
                stored_run(incident(kind=IncidentKind.NONFINITE, proposal=None, **STILL_BAD), state="failed"),
                stored_run(incident(proposal=None)),
                stored_run(incident(**STILL_BAD), state="running"),
                stored_run(policy={"mode": "auto"}),
            ]
        )
    )


def score(runs: Iterable[RunRecord]) -> list[ScoredRun]:
    """The runs of which a scorecard speaks."""
    return [score_run(run) for run in runs if is_scored(run)]
