"""Small seeded runs for the tests of detection."""

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monitor.detection import (
    DetectionEngine,
    Effect,
    Incident,
    IncidentChanged,
    Intervention,
    InterventionChanged,
    Policy,
    Rows,
)


def healthy(steps: int = 600, *, seed: int = 0, noise: float = 0.02) -> dict[str, Any]:
    """Columns of a healthy run, to be changed in place."""
    random = np.random.default_rng(seed)
    at = np.arange(steps)
    return {
        "loss": 2.2 + 3.3 * np.exp(-at / 90) + noise * random.standard_normal(steps),
        "grad_norm": (0.3 + np.exp(-at / 30)) * np.exp(0.1 * random.standard_normal(steps)),
        "log_z": 8.0 + 0.05 * random.standard_normal(steps),
    }


def spiked(at: int = 300, height: float = 1.5, tail: float = 60.0, **options: Any) -> dict[str, Any]:
    """A healthy run whose loss jumps at a step and falls back with a time constant of `tail` steps."""
    columns = healthy(**options)
    steps = np.arange(len(columns["loss"]))
    columns["loss"] = columns["loss"] + np.where(steps >= at, height * np.exp(-np.maximum(steps - at, 0) / tail), 0.0)
    return columns


def rows_of(columns: dict[str, Any], start: int = 0) -> Rows:
    return Rows.of(np.arange(start, start + len(columns["loss"])), **columns)


@dataclass
class EffectLog:
    """All effects in order, and the newest state of each incident and intervention."""

    effects: list[Effect] = field(default_factory=list)

    def add(self, effects: list[Effect]) -> list[Effect]:
        self.effects += effects
        return effects

    @property
    def incidents(self) -> list[Incident]:
        last = {e.incident.number: e.incident for e in self.effects if isinstance(e, IncidentChanged)}
        return [last[number] for number in sorted(last)]

    @property
    def interventions(self) -> list[Intervention]:
        last = {e.intervention.number: e.intervention for e in self.effects if isinstance(e, InterventionChanged)}
        return [last[number] for number in sorted(last)]

    def states(self, number: int) -> list[str]:
        """The states that an intervention went through."""
        changes = [
            e.intervention.state.value
            for e in self.effects
            if isinstance(e, InterventionChanged) and e.intervention.number == number
        ]
        return [state for k, state in enumerate(changes) if k == 0 or changes[k - 1] != state]


def detected(columns: dict[str, Any], *, policy: Policy | None = None, size: int = 1000, **options: Any) -> EffectLog:
    """Feed a whole run, with a checkpoint every 50 steps."""
    engine, log = DetectionEngine(None, policy, **options), EffectLog()
    for part in rows_of(columns).split(size):
        log.add(engine.feed(part, restorable=range(0, int(part.steps[-1]) + 1, 50)))
    return log


def begun(rows: Rows, restorable: Sequence[int] | None = None, **options: Any) -> tuple[DetectionEngine, EffectLog]:
    """An engine that has seen these rows, with what came of them."""
    engine, log = DetectionEngine(**options), EffectLog()
    log.add(engine.feed(rows, restorable=restorable))
    return engine, log


def reloaded(engine: DetectionEngine) -> DetectionEngine:
    """The engine after its state was stored."""
    again = DetectionEngine(policy=engine.policy)
    again.load_state_dict(json.loads(json.dumps(engine.state_dict(), allow_nan=False)))
    return again


class Trainer:
    """A trainer in miniature: it executes orders, and its batches decide whether the loss is disturbed.

    `bad`: batch indices that disturb the loss for `hurt` steps. `cursed`: steps at which it is disturbed, whatever the
    batch, unless the remedy `cure` is switched on. `damaged_at`: the first time that this step is reached, the state is
    damaged; the loss shows it `lag` steps later, until a checkpoint from before is restored. Reports one row at a time,
    checkpoints every `every` steps. `norm`: the factor on the gradient norm of disturbed steps, and of a damaged state
    at once. `compared`: what it says about the samples that it trains on after a rollback.
    """

    def __init__(
        self,
        engine: DetectionEngine,
        bad: Container[int] = (),
        *,
        steps: int = 600,
        hurt: int = 40,
        cursed: range = range(0),
        cure: str | None = None,
        damaged_at: int | None = None,
        lag: int = 0,
        every: int = 50,
        value: float = 1.5,
        norm: float = 1.0,
        compared: bool | None = None,
    ) -> None:
        self.engine, self.bad, self.hurt, self.cursed = engine, bad, hurt, cursed
        self.damaged_at, self.lag, self.every, self.value, self.norm = damaged_at, lag, every, value, norm
        self.cure, self.remedies, self.compared = cure, set[str](), compared
        self.damages: dict[int, int | None] = {}
        self.num_steps = 0
        self.steps, self.log, self.columns = steps, EffectLog(), healthy(steps)
        self.skips: list[tuple[int, int]] = []
        self.cursors: dict[int, int] = {}
        self.snapshots: dict[int, dict[str, Any]] = {}
        self.rewinds: list[int] = []

    def run(self) -> EffectLog:
        step, cursor, ill = 0, 0, 0
        damage: int | None = None
        while step < self.steps:
            while skip := next((b for a, b in self.skips if a <= cursor < b), None):
                cursor = skip
            if step % self.every == 0:
                self.cursors[step], self.snapshots[step] = cursor, self.engine.detectors_state()
                self.damages[step] = damage
            if step == self.damaged_at:
                damage, self.damaged_at = step, None
            cursed = step in self.cursed and self.cure not in self.remedies
            ill = self.hurt if cursor in self.bad or cursed else max(ill - 1, 0)
            row = {name: [column[step]] for name, column in self.columns.items()} | {"batch_index": [cursor]}
            shows = ill or (damage is not None and step >= damage + self.lag)
            row["loss"] = [row["loss"][0] + (self.value if shows else 0.0)]
            row["grad_norm"] = [row["grad_norm"][0] * (self.norm if ill or damage is not None else 1.0)]
            self.num_steps += 1
            restorable = sorted(at for at in self.cursors if at <= step)
            effects = self.log.add(self.engine.feed(Rows.of([step], **row), restorable=restorable))
            step, cursor = step + 1, cursor + 1
            for order in orders(effects):
                if order.kind == "hold":
                    self.log.add(self.engine.order_applied(order.number, rewound_to=None, skip_from=None, skip_to=None))
                    return self.log
                step, cursor, ill = self.obey(order), self.cursors[order.rewind_to or 0], 0
                damage = self.damages[step]
        return self.log

    def obey(self, order: Intervention) -> int:
        assert order.rewind_to is not None
        if order.skip_from is not None and order.skip_to is not None:
            self.skips.append((order.skip_from, order.skip_to))
        self.rewinds.append(order.rewind_to)
        self.remedies.update(order.remedies)
        to = order.rewind_to
        self.log.add(self.engine.fork(to, "rollback", [], self.snapshots[to], obeyed=order.number))
        done: dict[str, Any] = {"rewound_to": to, "skip_from": order.skip_from, "skip_to": order.skip_to}
        self.log.add(self.engine.order_applied(order.number, **done, compared=self.compared))
        return to


def orders(effects: list[Effect]) -> list[Intervention]:
    changes = [effect.intervention for effect in effects if isinstance(effect, InterventionChanged)]
    return [intervention for intervention in changes if intervention.state == "ordered"]
