"""Any events in any order: every transition is a step of its table, refused events change nothing, states are saved."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossguard.vocabulary.protocol import DATA_NOT_REPEATED, SKIPPED_SAMPLE_RETURNED
from lossguard.vocabulary.source_facts import SOURCE, SourceFacts
from lossguard.vocabulary.states import IncidentState, InterventionState
from monitor.detection import (
    INCIDENT_TRANSITIONS,
    INTERVENTION_TRANSITIONS,
    DetectionEngine,
    Effect,
    IncidentChanged,
    InterventionChanged,
    Policy,
    Rows,
)
from tests.monitor.detection.runs import reloaded

EVENTS = (
    "calm",
    "calm",
    "spike",
    "nan",
    "precursor",
    "hold",
    "rise",
    "approve",
    "reject",
    "applied",
    "failed",
    "fork",
    "resume",
    "rollback",
    "release",
    "source",
    "returned",
    "not repeated",
)


FACTS = (SourceFacts(stride=10, averaged=True), SourceFacts(smoothing=0.9, nan_filtered=True), SourceFacts())
ORDERED_AT_ONCE = (InterventionState.PROPOSED, InterventionState.ORDERED)
"""The one pair of steps that is reported as one change: a proposal is approved, and ordered."""
FIRST_STATES: dict[str, set[Any]] = {
    "incident": {IncidentState.WARNING, IncidentState.OPEN},
    "intervention": {InterventionState.PROPOSED, InterventionState.ORDERED},
}


class Random:
    """A run to which things happen."""

    def __init__(self, mode: str) -> None:
        self.engine = DetectionEngine(policy=Policy(mode=mode, patience=4))  # type: ignore[arg-type]
        self.random = np.random.default_rng(0)
        self.step = 0
        self.fresh = self.engine.detectors_state()

    def happen(self, event: str) -> list[Effect]:
        engine, number = self.engine, self.engine.interventions.num_interventions
        match event:
            case "calm" | "spike" | "nan" | "precursor" | "rise":
                return self.rows(event)
            case "approve":
                return engine.approve(number)
            case "reject":
                return engine.reject(number)
            case "applied":
                return engine.order_applied(number, rewound_to=None, skip_from=None, skip_to=None)
            case "failed":
                return engine.order_failed(number, "no disk")
            case "fork" | "resume":
                self.step = max(self.step - 60, 0)
                if event == "resume":
                    return engine.fork(self.step, event, [], self.fresh)
                return engine.fork(self.step, "rollback", [], self.fresh, obeyed=number)
            case "rollback":
                return engine.rollback(reason="try")
            case "hold":
                return engine.hold("wait")
            case "returned":
                return engine.declare(self.step, SKIPPED_SAMPLE_RETURNED, {"rows": 1})
            case "not repeated":
                return engine.declare(self.step, DATA_NOT_REPEATED, {"batch_index": self.step})
            case "source":
                engine.declare(self.step, SOURCE, FACTS[self.step // 40 % len(FACTS)].to_details())
                return []
        return engine.release("continue")

    def rows(self, kind: str) -> list[Effect]:
        loss = 2.0 + 0.02 * self.random.standard_normal(40)
        if kind == "spike":
            loss[10:] += 1.5
        if kind == "nan":
            loss[20] = np.nan
        if kind == "rise":
            loss += 0.05 * np.arange(40)
        grad_norm = np.exp(0.1 * self.random.standard_normal(40))
        if kind == "precursor":
            grad_norm[20:] *= 20.0
            loss[35:] += 1.5
        steps = np.arange(self.step, self.step + 40)
        self.step += 40
        return self.engine.feed(Rows.of(steps, loss=loss, grad_norm=grad_norm), restorable=range(0, self.step, 20))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["observe", "approve", "auto"]), st.lists(st.sampled_from(EVENTS), max_size=25))
def test_any_order_of_events_follows_the_tables_and_can_be_saved(mode: str, events: list[str]) -> None:
    run = Random(mode)
    states: dict[tuple[str, int], object] = {}
    for event in events:
        before = json.dumps(run.engine.state_dict(), allow_nan=False)
        try:
            effects = run.happen(event)
        except ValueError:  # an event that is not possible now: nothing may have changed
            assert json.dumps(run.engine.state_dict(), allow_nan=False) == before
            continue
        for effect in effects:
            if isinstance(effect, IncidentChanged):
                incident = effect.incident
                check_step(states, "incident", INCIDENT_TRANSITIONS, incident.number, incident.state)
            if isinstance(effect, InterventionChanged):
                intervention = effect.intervention
                check_step(states, "intervention", INTERVENTION_TRANSITIONS, intervention.number, intervention.state)
        again = reloaded(run.engine)
        assert again.state_dict() == run.engine.state_dict()


def check_step(states: dict[tuple[str, int], object], kind: str, table: Any, number: int, state: object) -> None:
    """The state is one step of the table away from the last one, or the same; numbers rise by one."""
    if (kind, number) not in states:
        assert number == 1 + sum(known == kind for known, _ in states)
        assert state in FIRST_STATES[kind]
    elif state is not (last := states[kind, number]):
        assert state in table.get(last, {}).values() or (last, state) == ORDERED_AT_ONCE, (last, state)
    states[kind, number] = state
