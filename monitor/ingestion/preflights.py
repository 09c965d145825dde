"""Questions to a trainer while one of its rollbacks waits for approval, sent with the answer to a report."""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from db.models import Run
from db.records import preflights
from lossguard.vocabulary.protocol import ANSWERS_PREFLIGHT
from monitor.detection.interventions.policy import Mode
from monitor.ingestion import order_terms
from monitor.schemas import PreflightIn

ASK_SECONDS = 5.0
"""An answer that is older is asked for again."""


@dataclass(frozen=True, slots=True)
class ProposedRollback:
    """A proposed rollback, and how often the trainer has answered about it."""

    intervention: int
    """Id of the intervention."""
    number: int
    step: int
    skip_from: int | None
    skip_to: int | None
    lr_scale: float | None
    num_answers: int = 0
    answered_at: float | None = None

    @property
    def question(self) -> str:
        """Id of the next question."""
        return f"{self.intervention}-{self.num_answers + 1}"

    def to_wire(self, now: float) -> dict[str, Any] | None:
        """The question as the trainer gets it; None while the last answer is new."""
        if self.answered_at is not None and 0 <= now - self.answered_at < ASK_SECONDS:
            return None
        changes = {name: getattr(self, name) for name in ("step", "skip_from", "skip_to", "lr_scale")}
        return {"id": self.question, **changes}


def proposal(session: Session, run: Run, mode: Mode) -> ProposedRollback | None:
    """The question for this run's trainer; None if it does not answer, and of a run that is only observed."""
    is_asked = ANSWERS_PREFLIGHT in run.capabilities and mode is not Mode.OBSERVE
    row = preflights.to_ask(session, run=run) if is_asked else None
    if row is None or row.rewind_to is None:
        return None
    asked = ProposedRollback(row.id, row.number, row.rewind_to, row.skip_from, row.skip_to, row.lr_scale)
    known = preflights.answer_to(session, intervention=row)
    return asked if known is None else replace(asked, num_answers=known.num_answers, answered_at=known.answered_at)


def take(
    session: Session, run: Run, asked: ProposedRollback | None, answer: PreflightIn, now: float
) -> ProposedRollback | None:
    """Keep the answer if it is to the present question. Late ones, of a spool that waited, are dropped."""
    if asked is None or answer.id != asked.question:
        return asked
    terms = order_terms.of(session)
    content = answer.model_dump() | {"order_seconds": terms.seconds, "order_steps": terms.steps}
    count = preflights.save_answer(session, run=run, intervention=asked.number, answer=content, now=now)
    return replace(asked, num_answers=count, answered_at=now)
