"""Loops in miniature whose losses follow from their samples, for tests of what the detection knows of these."""

from collections.abc import Callable
from typing import Any

import numpy as np

from monitor.detection import DetectionEngine, Intervention, Rows
from monitor.detection.scoring.recomputed_steps import first_doubtful_step
from tests.monitor.detection.runs import EffectLog, orders

MAX_DRAWS = 20_000


class Loop:
    """It reports batch indices, obeys orders, and draws its samples in a way of its own. A sample is a number.

    `draws`: "indexed", the sample of the batch index; "rewound", the next one of random numbers that a restore sets
    back, whatever the batch index; "fresh", the next one of random numbers that no restore sets back. A `bad` sample
    disturbs the loss for `hurt` steps by `value`.
    """

    def __init__(
        self,
        engine: DetectionEngine,
        bad: Callable[[int], bool],
        *,
        draws: str,
        steps: int = 700,
        hurt: int = 40,
        value: float = 1.5,
        every: int = 10,
    ) -> None:
        self.engine, self.bad, self.draws = engine, bad, draws
        self.steps, self.hurt, self.value, self.every = steps, hurt, value, every
        self.log = EffectLog()
        self.noise = 0.02 * np.random.default_rng(4).standard_normal(MAX_DRAWS)
        self.trained: list[int] = []
        """The sample of each step that was taken, in order."""
        self.skips: list[tuple[int, int]] = []
        self.records: dict[int, dict[str, float]] = {}
        self.checkpoints: dict[int, tuple[int, int, int, dict[str, Any]]] = {}

    def run(self) -> EffectLog:
        step = cursor = drawn = ill = 0
        while step < self.steps and len(self.trained) < MAX_DRAWS:
            cursor = self._free(cursor)
            if step % self.every == 0:
                self.checkpoints[step] = cursor, drawn, ill, self.engine.detectors_state()
            sample = cursor if self.draws == "indexed" else drawn
            ill = self.hurt if self.bad(sample) else max(ill - 1, 0)
            loss = 2.2 + 0.3 * np.exp(-step / 90) + self.noise[sample] + (self.value if ill else 0.0)
            self.records[step] = {"loss": loss, "batch_index": cursor}
            self.trained.append(sample)
            row = Rows.of([step], loss=[loss], batch_index=[cursor])
            known = sorted(at for at in self.checkpoints if at <= step)
            effects = self.log.add(self.engine.feed(row, restorable=known))
            step, cursor, drawn = step + 1, cursor + 1, drawn + 1
            for order in orders(effects):
                if order.kind == "hold":
                    return self.log
                step = self._obey(order)
                cursor, rewound, ill, _ = self.checkpoints[step]
                drawn = rewound if self.draws == "rewound" else drawn
        return self.log

    def _free(self, cursor: int) -> int:
        return next((self._free(end) for first, end in self.skips if first <= cursor < end), cursor)

    def _obey(self, order: Intervention) -> int:
        to = order.rewind_to
        assert to is not None
        if order.skip_from is not None and order.skip_to is not None:
            self.skips.append((order.skip_from, order.skip_to))
        recorded = [self.records[step] for step in range(to, min(to + 128, max(self.records) + 1))]
        columns = {name: [each[name] for each in recorded] for name in ("loss", "batch_index")}
        rows = Rows.of(range(to, to + len(recorded)), **columns)
        found = [(each.onset_step, each.detected_step) for each in self.log.incidents if each.signal == "loss"]
        doubtful = first_doubtful_step(each for each in found if each[0] >= to)
        snapshot = self.checkpoints[to][3]
        fork: dict[str, Any] = {"obeyed": order.number, "recorded": rows, "doubtful_from": doubtful}
        self.log.add(self.engine.fork(to, "rollback", [], snapshot, **fork))
        skip: dict[str, Any] = {"skip_from": order.skip_from, "skip_to": order.skip_to}
        self.log.add(self.engine.order_applied(order.number, rewound_to=to, **skip))
        self.checkpoints = {step: each for step, each in self.checkpoints.items() if step <= to}
        self.records = {step: each for step, each in self.records.items() if step < to}
        return to
