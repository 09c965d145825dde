"""Reports that wait are stored together: one transaction, one commit to the disk, many answers.

While a group is being stored in a thread the next one gathers, so that a lone report waits for nobody and a hundred
trainers share the cost of a commit. Nothing is answered before the commit. A report that cannot be stored spoils the
others nothing: the group is rolled back and its members are taken one by one.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from db.engine import writing
from monitor.ingestion.reports import Receipt
from monitor.schemas import ReportIn

MOST_REPORTS, MOST_STEPS = 64, 10_000
"""A group: it locks its runs until it is stored."""

Take = Callable[[Session, str, ReportIn, int | None], Receipt]
Lock = Callable[[Session, Sequence[str]], None]
Timed = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Waiting:
    run_id: str
    report: ReportIn
    left: int | None
    """Bytes that wait in the trainer's spool behind this report, where it says so."""
    answer: asyncio.Future[Receipt]


class ReportQueue:
    """Lives in the event loop's thread, so that its queue needs no lock; `take` stores one report in a session.

    `lock` is given the runs of several reports before the first of them is taken; `timed` is entered around every
    transaction.
    """

    def __init__(self, engine: sa.Engine, take: Take, lock: Lock, *, timed: Timed = nullcontext) -> None:
        self._engine, self._take, self._lock, self._timed = engine, take, lock, timed
        self._waiting: list[Waiting] = []
        self._storing: asyncio.Task[None] | None = None

    async def take(self, run_id: str, report: ReportIn, *, left: int | None = None) -> Receipt:
        """Store the report: its receipt, once it is committed. Raises what kept it from being stored."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(run_id, report, left, answer))
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_all())
        receipt: Receipt = await answer
        return receipt

    async def _store_all(self) -> None:
        try:
            while group := self._next():
                for one, outcome in zip(group, await run_in_threadpool(self._store, group), strict=True):
                    if one.answer.done():  # nobody waits for it any longer
                        continue
                    if isinstance(outcome, Exception):
                        one.answer.set_exception(outcome)
                    else:
                        one.answer.set_result(outcome)
        finally:
            self._storing = None

    def _next(self) -> list[Waiting]:
        steps, size = 0, 0
        while size < min(len(self._waiting), MOST_REPORTS) and steps < MOST_STEPS:
            steps += len(self._waiting[size].report.steps)
            size += 1
        group, self._waiting = self._waiting[:size], self._waiting[size:]
        # Everybody locks runs in one order, so that two collectors never wait for each other in a circle.
        return sorted(group, key=lambda one: one.run_id)

    def _store(self, group: Sequence[Waiting]) -> list[Receipt | Exception]:
        try:
            with self._timed(), writing(self._engine) as session:
                if len(group) > 1:
                    self._lock(session, [one.run_id for one in group])
                return [self._take(session, one.run_id, one.report, one.left) for one in group]
        except (sa.exc.OperationalError, sa.exc.TimeoutError) as error:  # the database is away, for all of them
            return [error] * len(group)
        except Exception as error:
            return [error] if len(group) == 1 else [outcome for one in group for outcome in self._store([one])]
