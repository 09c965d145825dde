"""A run that sends to a collector what no usual loop does.

It goes through the collector's own routes. Only incidents with missing or extreme values are written to the store
directly: the detection decides alone about those that it opens.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from db import commands, queries
from db.store.engine import writing
from lossguard.vocabulary.protocol import API
from lossguard.vocabulary.states import OrderState
from monitor.app import create_app
from monitor.settings import Settings
from tests.dashboard.seed import stored
from tests.monitor.client import NOW, TestClient, Trainer

MAX_STEP = 2**53 - 2
"""Steps beyond it are not exact in double precision, which charts use."""
LONG = "a reason that does not end " * 300
Column = Sequence[float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A segment and its steps."""

    steps: Sequence[int] = ()
    metrics: Mapping[str, Column] = field(default_factory=dict)
    times: Sequence[float] | None = None
    """One second apart by default."""
    fork_step: int | None = 0
    reason: str = "start"


@dataclass(frozen=True, kw_only=True, slots=True)
class HostileRun:
    id: str
    parts: Sequence[Part] = ()
    registration: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    """On the first segment."""
    incidents: Sequence[Mapping[str, Any]] = ()
    """Fields of incidents, beside those of `INCIDENT`."""
    interventions: Sequence[Mapping[str, Any]] = ()
    """Fields of interventions on the first incident, beside those of `INTERVENTION`; each was applied."""
    state: str | None = None
    """In which it ended; None: it runs."""

    def report(self, engine: sa.Engine) -> None:
        """To a collector over this store."""
        with TestClient(create_app(Settings(), engine=engine)) as http:
            trainer = Trainer(http, self.id, **self.registration)
            for number, part in enumerate(self.parts):
                trainer.open(f"s{number}", part.fork_step, part.reason)
                times = part.times or [NOW + index for index in range(len(part.steps))]
                events = self.events if number == 0 else ()
                trainer.report(number, part.steps, part.metrics, times=list(times), events=list(events))
            self._save_incidents(engine)
            if self.state is not None:
                body = {"state": self.state, "at": time.time()}
                assert http.post(f"{API}/runs/{self.id}/finish", json=body).status_code == 200

    def _save_incidents(self, engine: sa.Engine) -> None:
        with writing(engine) as session:
            run = stored(session, self.id)
            taken = len(queries.incidents(session, run=run)), len(queries.interventions(session, run=run))
            for number, incident in enumerate(self.incidents, taken[0] + 1):
                commands.save_incident(session, run=run, number=number, now=NOW, **{**INCIDENT, **incident})
            for number, values in enumerate(self.interventions, taken[1] + 1):
                requested = {**INTERVENTION, "incident": taken[0] + 1, **values}
                done = commands.save_intervention(session, run=run, number=number, now=NOW, **requested)
                order = commands.issue_order(session, intervention=done, reason=LONG, now=NOW)
                answer = {name: requested[name] for name in ("skip_from", "skip_to")}
                commands.answer_order(
                    session, order=order, state=OrderState.APPLIED, rewound_to=requested["rewind_to"], detail=LONG,
                    now=NOW, **answer,
                )  # fmt: skip


INCIDENT: Mapping[str, Any] = {
    "segment": 0, "kind": "loss_spike", "state": "open", "signal": "loss", "onset_step": 0, "detected_step": 0,
    "peak_step": None, "end_step": None, "score": None, "outcome": None, "details": {},
}  # fmt: skip
INTERVENTION: Mapping[str, Any] = {
    "kind": "rollback", "state": "applied", "attempt": 1, "rewind_to": 0, "skip_from": 0, "skip_to": MAX_STEP,
    "lr_scale": 1e-308, "details": {},
}  # fmt: skip
