"""Whatever happens in whatever order: the states follow their tables, and the state can be saved."""

import json
from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

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

EVENTS = (
    "calm",
    "calm",
    "spike",
    "nan",
    "approve",
    "reject",
    "applied",
    "failed",
    "fork",
    "resume",
    "rollback",
    "release",
)


def reachable(table: object, start: object, end: object) -> bool:
    """Whether a table leads from one state to another in any number of events."""
    seen, front = {start}, [start]
    while front:
        for state in table.get(front.pop(), {}).values():  # type: ignore[attr-defined]
            if state not in seen:
                seen.add(state)
                front.append(state)
    return end in seen


class Random:
    """A run to which things happen."""

    def __init__(self, mode: str) -> None:
        self.watch = DetectionEngine(policy=Policy(mode=mode, patience=4))  # type: ignore[arg-type]
        self.random = np.random.default_rng(0)
        self.step = 0
        self.fresh = self.watch.detectors_state()

    def happen(self, event: str) -> list[Effect]:
        watch, number = self.watch, self.watch.interventions.num_interventions
        match event:
            case "calm" | "spike" | "nan":
                return self.rows(event)
            case "approve":
                return watch.approve(number)
            case "reject":
                return watch.reject(number)
            case "applied":
                return watch.order_applied(number, rewound_to=None, skip_from=None, skip_to=None)
            case "failed":
                return watch.order_failed(number, "no disk")
            case "fork" | "resume":
                self.step = max(self.step - 60, 0)
                if event == "resume":
                    return watch.fork(self.step, event, [], self.fresh)
                return watch.fork(self.step, "rollback", [], self.fresh, obeyed=number)
            case "rollback":
                return watch.rollback(reason="try")
        return watch.release("go on")

    def rows(self, kind: str) -> list[Effect]:
        loss = 2.0 + 0.02 * self.random.standard_normal(40)
        if kind == "spike":
            loss[10:] += 1.5
        if kind == "nan":
            loss[20] = np.nan
        steps = np.arange(self.step, self.step + 40)
        self.step += 40
        return self.watch.feed(Rows.of(steps, loss=loss), restorable=range(0, self.step, 20))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["observe", "approve", "auto"]), st.lists(st.sampled_from(EVENTS), max_size=25))
def test_any_order_of_events_follows_the_tables_and_can_be_saved(mode: str, events: list[str]) -> None:
    run = Random(mode)
    states: dict[tuple[str, int], object] = {}
    numbers: dict[str, list[int]] = defaultdict(list)
    for event in events:
        before = json.dumps(run.watch.state_dict(), allow_nan=False)
        try:
            effects = run.happen(event)
        except ValueError:  # a person's or a trainer's word that does not fit: nothing may have changed
            assert json.dumps(run.watch.state_dict(), allow_nan=False) == before
            continue
        for effect in effects:
            if isinstance(effect, IncidentChanged):
                check(states, numbers, "incident", INCIDENT_TRANSITIONS, effect.incident.number, effect.incident.state)
            if isinstance(effect, InterventionChanged):
                done = effect.intervention
                check(states, numbers, "intervention", INTERVENTION_TRANSITIONS, done.number, done.state)
        again = DetectionEngine(policy=run.watch.policy)
        again.load_state_dict(json.loads(json.dumps(run.watch.state_dict(), allow_nan=False)))
        assert again.state_dict() == run.watch.state_dict()


def check(
    states: dict[tuple[str, int], object],
    numbers: dict[str, list[int]],
    what: str,
    table: object,
    number: int,
    state: object,
) -> None:
    """The new state follows from the last one told, and numbers rise by one."""
    key = (what, number)
    if key not in states:
        numbers[what].append(number)
        assert numbers[what] == list(range(1, len(numbers[what]) + 1))
    else:
        assert reachable(table, states[key], state)
    states[key] = state
