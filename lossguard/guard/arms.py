"""Twin arms: the alternatives of an order, tried from the same checkpoint on the same later batches.

Before a guard carries a rollback out, the loop trains each arm for some steps, and the held-out loss of all of them is
measured on the same documents. Then the state of now is restored, and the run goes on as if there had been no arms.
"""

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lossguard.checkpoints.store import CheckpointStore
from lossguard.guard.checkpointer import Position, tier_of
from lossguard.guard.data.source import BatchSource
from lossguard.guard.remedies import Remedies
from lossguard.run.run import Run
from lossguard.vocabulary.errors import CheckpointError, CheckpointMismatch, LogOnce
from lossguard.vocabulary.orders import Order, Skip
from lossguard.vocabulary.protocol import ARMS
from lossguard.vocabulary.states import Arm
from lossguard.vocabulary.wire import ArmResult, ArmsTried
from lossguard.vocabulary.wording import Estimate

PAST_RATIO, BEST_RATIO = 0.05, 0.01
"""An arm got past if its loss is above that of the checkpoint, and of the best arm, by at most these parts of it,"""
PAST_ERRORS = 2.0
"""or by at most so many standard errors of the difference."""
MAX_PAUSE = 3600.0
"""Seconds of arms that are announced to the collector."""

Losses = list[float]
"""Losses of the documents, in nats."""


@dataclass(slots=True)
class _Trained:
    """An arm, and what it came to."""

    arm: Arm
    skip: Skip | None = None
    remedy: str | None = None
    steps: int = 0
    losses: Losses = field(default_factory=list)


class Arms:
    """The arms of a guard. They raise nothing into its loop except CheckpointMismatch, as a rollback does."""

    def __init__(
        self,
        run: Run,
        checkpoints: CheckpointStore,
        position: Position,
        remedies: Remedies,
        evaluate: Callable[[], Iterable[float]],
        share: float,
        window: int,
        log_once: LogOnce,
        is_interrupted: Callable[[], bool],
    ) -> None:
        """See `Guard.arms`. `is_interrupted()`: the run is asked to stop, so that nothing more is tried."""
        if not share > 0 or type(window) is not int or window < 1 or not callable(evaluate):
            given = f"not {evaluate!r:.80}, share={share!r:.40} and window={window!r:.40}"
            raise ValueError(f"guard.arms needs a function, a share above 0 and a window of at least 1 step, {given}")
        self._run, self._position, self._remedies, self._log_once = run, position, remedies, log_once
        self._checkpoints: Any = checkpoints
        self._evaluate, self._share, self._window = evaluate, share, window
        self._is_interrupted = is_interrupted
        self._is_over = False
        self._num_orders = 0  # whose arms were tried
        self._num_steps = 0  # that they have trained
        self.now: Arm | None = None
        """The arm of the present step."""
        if not getattr(checkpoints, "holds_states", hasattr(checkpoints, "take_back")):
            self.give_up("these checkpoints cannot hold the state of now (lossguard.torch.Checkpoints can)")

    def give_up(self, why: str) -> None:
        """Try no arms any more."""
        self._is_over = True
        self._log_once.warn_once("arms", f"no arms are tried: {why}")

    def play(
        self, order: Order, source: BatchSource, until: int, tell: Callable[[str], None]
    ) -> Iterator[tuple[int, Any]]:
        """Yield the steps of all arms of `order` to the loop, and report what they led to. A step was just done."""
        start = self._position.step + 1
        end, target = min(start + self._window, until), order.rewind_to
        if self._is_over or target is None or not self._may_try(target, source, start, end):
            return
        self._run.expect(next_report_in=MAX_PAUSE)
        self._run.aside = True
        present, skips = self._remedies.present(), list(self._position.ledger.skips)
        held: Any = None
        tried: ArmsTried | None = None
        try:
            held = self._checkpoints.hold(self._position.state())
            tried = yield from self._try_all(order, target, source, held, end)
        except CheckpointMismatch:
            raise
        except (CheckpointError, TimeoutError) as problem:
            self._log_once.warn_once(f"arms {problem}", f"the arms of an order were not tried: {problem}")
        except Exception as problem:  # the loop's own evaluation, or too little memory, must not end the run
            self.give_up(f"{type(problem).__name__}: {problem}")
        finally:
            self._put_back(skips, present)
            if held is not None:
                state = self._checkpoints.take_back(held)
                self._position.enter(state)
                forget: Callable[[Any], None] = getattr(source.state, "forget_since", lambda _: None)
                forget(state.get("data"))
            self._run.skipped = self.now = None
            self._run.aside = False
        if tried is not None:
            self._num_orders += 1
            self._run.log_event(ARMS, tried.to_details())
            arms = ", ".join(f"{each.arm} {each.difference:+.3f} +- {each.error:.3f}" for each in tried.results)
            tell(f"tried the arms of a rollback to step {tried.rewind_to}; held-out loss minus that of waiting: {arms}")

    def _may_try(self, target: int, source: BatchSource, start: int, end: int) -> bool:
        """Return True if the data can go back, and the steps are left; otherwise a warning says once why not."""
        if source.first_available(0) > 0:
            self.give_up("the training data is an iterator, which cannot go back")
            return False
        cost = (end - start) + (len(Arm) - 1) * (end - target)
        left = self._share * start - self._num_steps
        if cost > left:
            why = f"they cost {cost} steps, and share={self._share:g} leaves {max(0.0, left):.0f} at step {start}"
            self._log_once.warn_once("arms cost", f"the arms of an order are not tried: {why}")
        return cost <= left

    def _put_back(self, skips: list[Skip], present: Any) -> None:
        """Undo what an arm has changed besides the state that checkpoints hold."""
        self._position.ledger.skips[:] = skips
        self._remedies.put_back(present)

    def _try_all(
        self, order: Order, target: int, source: BatchSource, held: Any, end: int
    ) -> Generator[tuple[int, Any], None, ArmsTried]:
        """Yield the steps of one arm after the other. Returns what they led to."""
        position, after = self._position, self._position.batch + 1
        start = position.step + 1
        present, skips = self._remedies.present(), list(position.ledger.skips)
        deadline = math.inf if order.expires_at is None else (time.time() + order.expires_at) / 2
        tier = tier_of(self._checkpoints, target)
        position.enter(self._checkpoints.load(target))
        rewound_to, before = position.step, self._measure()
        trained: list[_Trained] = []
        for this in self._plans(order, position.cursor, after):
            self._put_back(skips, present)
            if this.arm is Arm.WAIT:
                position.enter(self._checkpoints.take_back(held))
                position.advance()
            else:
                position.enter(self._checkpoints.load(target))
            if this.skip is not None:
                position.ledger.add(this.skip)
            if this.remedy is not None and "remedies" not in self._remedies.start([this.remedy], position.step):
                continue
            self.now = this.arm
            while position.step < end:
                if self._is_interrupted() or time.time() > deadline:
                    raise TimeoutError("the run was asked to stop, or the order would have expired")
                self._remedies.update(position.step)
                yield position.step, self._get(source)
                position.advance()
                this.steps += 1
                self._num_steps += 1
            this.losses = self._measure()
            trained.append(this)
        best = min((each.losses for each in trained), key=_order_of)
        results = tuple(_result(each, trained[0].losses, before, best) for each in trained)
        return ArmsTried(order=order.id, rewind_to=rewound_to, tier=tier, window=end - start, results=results)

    def _plans(self, order: Order, cursor: int, after: int) -> Iterator[_Trained]:
        """The arms of an order. Without a skip of its own, all batches since the checkpoint are left out: from `cursor`
        to before `after`."""
        yield _Trained(Arm.WAIT)
        yield _Trained(Arm.REWIND)
        if not self._position.skips_ended:
            first, end = order.skip_from, order.skip_to
            skip = Skip(cursor, after) if first is None or end is None else Skip(first, end)
            yield _Trained(Arm.REWIND_AND_SKIP, skip=skip)
        names = list(self._remedies.registered)
        if remedy := next(iter(order.remedies), names[self._num_orders % len(names)] if names else None):
            yield _Trained(Arm.REWIND_WITH_REMEDY, remedy=remedy)

    def _get(self, source: BatchSource) -> Any:
        try:
            return source.get(self._position.batch, since=self._position.cursor)
        except StopIteration:
            raise LookupError("the training data has ended") from None

    def _measure(self) -> Losses:
        return [float(loss) for loss in self._evaluate()]


def _order_of(losses: Losses) -> tuple[bool, float]:
    """The lowest mean comes first, and one that is not finite last."""
    mean = _mean(losses)
    return not math.isfinite(mean), mean


def _result(this: _Trained, waited: Losses, before: Losses, best: Losses) -> ArmResult:
    """`waited`: the losses of the arm `wait`; `before`: those of the checkpoint; `best`: the lowest of all arms."""
    difference, error = paired(this.losses, waited)
    return ArmResult(
        arm=this.arm,
        steps=this.steps,
        loss=_mean(this.losses),
        difference=difference,
        error=error,
        got_past=_is_no_higher(this.losses, before, PAST_RATIO) and _is_no_higher(this.losses, best, BEST_RATIO),
        skipped=0 if this.skip is None else this.skip.skip_to - this.skip.skip_from,
        remedy=this.remedy,
    )


def _is_no_higher(losses: Losses, others: Losses, ratio: float) -> bool:
    rise, error = paired(losses, others)
    return rise <= max(ratio * abs(_mean(others)), PAST_ERRORS * (0.0 if math.isnan(error) else error))


def _mean(losses: Losses) -> float:
    return sum(losses) / len(losses)  # math.fsum raises for infinities of both signs


def paired(losses: Losses, others: Losses) -> tuple[float, float]:
    """The mean difference to other losses of the same documents, and its standard error: NaN for a single document.

    Raises ValueError where there are not as many, or none.
    """
    if len(losses) != len(others) or not losses:
        raise ValueError(f"evaluate() must give the loss of the same documents: {len(others)}, and then {len(losses)}")
    differences = [loss - other for loss, other in zip(losses, others, strict=True)]
    mean = _mean(differences)  # an infinite one stays infinite
    return mean, Estimate.of(differences).standard_error
