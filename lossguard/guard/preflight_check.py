"""The trainer's side of a preflight: at a boundary it looks whether a proposed rollback could be carried out.

The files are looked at in a thread, because a disk may hang; what is read of the training data is read in the loop's
thread, because it is the loop's. Nothing raises into the loop.
"""

import math
import threading
import time
from collections.abc import Callable

from lossguard.checkpoints.store import CheckpointStore
from lossguard.guard.checkpointer import tier_of
from lossguard.guard.limits_in_force import LimitsInForce
from lossguard.run.run import Run
from lossguard.vocabulary.errors import LogOnce
from lossguard.vocabulary.protocol import storable
from lossguard.vocabulary.states import Tier
from lossguard.vocabulary.wire import MAX_CHARACTERS, Answer, Question

TEXT_SECONDS = 600.0
"""Between the texts of two proposals; each has those of at most `wire.MAX_TEXTS` batches."""


class PreflightCheck:
    """Answers each question of the collector once."""

    def __init__(self, run: Run, checkpoints: CheckpointStore, limits: LimitsInForce, log_once: LogOnce) -> None:
        self._run, self._checkpoints, self._limits, self._log_once = run, checkpoints, limits, log_once
        self.read_text: Callable[[int], str] | None = None
        """Gives the text of a batch by its index; None: there is no decoder, or the data cannot be read out of turn."""
        self._answered: str | None = None
        self._texts: dict[tuple[int, int], tuple[tuple[int, str], ...]] = {}  # of the last proposal
        self._read_at = -math.inf  # when they were read, in monotonic seconds
        self._thread: threading.Thread | None = None
        self.has_found_a_problem = False
        """A checkpoint was not there: the restorable steps should be listed anew."""

    def update(self, step: int, until: int) -> None:
        """Answer the question that waits, if one does. About 0.3 microseconds where none does."""
        question = self._run.question
        if question is None or question.id == self._answered or (self._thread and self._thread.is_alive()):
            return
        self._answered = question.id
        try:
            refused = self._limits.would_refuse(question.as_order(), step=step, until=until)
            texts, tier = () if refused else self._read_texts(question), tier_of(self._checkpoints, question.step)
            arguments = (question, refused[1] if refused else "", texts, tier)
            self._thread = threading.Thread(target=self._look, args=arguments, name="lossguard-preflight", daemon=True)
            self._thread.start()
        except Exception as problem:  # no reason to end a run that computes
            self._log_once.warn_once("preflight", f"a preflight could not be answered: {problem}")

    def _look(self, question: Question, refused: str, texts: tuple[tuple[int, str], ...], tier: Tier) -> None:
        problem, store, step = None, self._checkpoints, question.step
        try:
            if tier is not Tier.MEMORY and hasattr(store, "check"):
                problem = store.check(step)
            elif tier is not Tier.MEMORY and step not in store.steps():
                problem = "it is no longer there"
        except Exception as error:  # of a store of the loop's own
            problem = f"it cannot be looked at ({type(error).__name__}: {error})"
        self.has_found_a_problem |= bool(problem)
        found, why = None if problem else tier, storable(problem or "")
        self._run.answer_question(Answer(id=question.id, problem=why, tier=found, refused=refused, texts=texts))

    def _read_texts(self, question: Question) -> tuple[tuple[int, str], ...]:
        """The texts of the first skipped batches, read once for each proposal. Whatever a decoder raises ends them.

        Those of another proposal are read TEXT_SECONDS later: a collector cannot ask for all of the data.
        """
        batches = question.batches()
        key = (batches.start, batches.stop)
        is_due = time.monotonic() - self._read_at >= TEXT_SECONDS
        if self.read_text is not None and key not in self._texts and is_due and batches:
            self._read_at = time.monotonic()
            found: list[tuple[int, str]] = []
            try:
                found.extend((batch, storable(str(self.read_text(batch)))[:MAX_CHARACTERS]) for batch in batches)
            except Exception as problem:
                self._log_once.warn_once("decode", f"decode raised, so a text is not shown: {problem!r:.300}")
            self._texts = {key: tuple(found)}
        return self._texts.get(key, ())
