"""The guard drives a training loop of one's own: it yields batches by absolute index, and acts between two steps."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lossguard.guard.controller import Controller
from lossguard.guard.data.source import BatchSource, Indexable
from lossguard.guard.gate_bounds import DEVIATIONS
from lossguard.vocabulary.orders import Order
from lossguard.vocabulary.protocol import is_step
from lossguard.vocabulary.states import Arm, OrderKind

if TYPE_CHECKING:
    from lossguard.guard.arms import Arms
    from lossguard.guard.gate import Gate


class Guard(Controller):
    """Yields steps and batches to a loop, and takes the run back when the collector orders a rollback.

    `every`: steps between two checkpoints. `signals`: signals that stop the run after the current step, with a
    checkpoint; a second SIGINT raises KeyboardInterrupt. `ranks`: the processes that train the run together, by default
    those of torch.distributed if it is initialised. All ranks act at the same step: an order to rank 0, a signal on any
    rank and a restore that fails on one rank concern all of them, at the boundary where all know of it.
    `skips`: batch ranges that the run never uses, in addition to those that it has skipped before.
    `skip_samples`: "run" (the samples of skipped batches stay skipped: later epochs of a loader that reads samples by
    index leave them out, and later passes of a sequence skip the same batches) or "once" (they come again).
    `limits`: what orders may do at most (see `Limits`); LOSSGUARD_LIMITS and the file `limits` in the run's folder make
    them stricter, and the file `no-orders` in that folder, or `guard.observe()`, ends all obedience.
    `resume_from`: the step of an older checkpoint that a person has chosen to resume from. As after a rollback, newer
    checkpoints are discarded and skips stay. It happens once: a process that is started again with the same step
    resumes from the newest checkpoint, until one was started without it, or with another step.
    `decode(batch)`: the text of a batch. A person who is asked to approve a rollback then sees the beginning of the
    first batches that it skips. It is called on rank 0 between two steps, for at most 3 batches of a proposal; whatever
    it raises is reported, and training continues. It needs batches that are read by index and keep no position of their
    own: a sequence or `lossguard.torch.Drawn`, not a DataLoader or a stream, which would have to move.

    Every restore is verified. `steps` raises CheckpointMismatch if a restore is not exact, or fails half-way and cannot
    be undone, and RanksError if a rank has left. A guard raises no other errors into a running loop: in these cases,
    continuing would train something else than the run.
    """

    _arms: "Arms | None" = None

    @property
    def arm(self) -> Arm | None:
        """The arm that the loop trains now; None in all steps of the run itself."""
        return None if self._arms is None else self._arms.now

    def arms(self, evaluate: Callable[[], Iterable[float]], *, share: float = 0.05, window: int = 75) -> None:
        """Before a rollback that is ordered, try its alternatives too, on at most this `share` of the steps so far.

        The loop gets the steps of each arm as it gets those of the run: from the state of now (`wait`), and from the
        checkpoint of the order with the same batches, without the skipped ones, and with a remedy. Each arm trains
        until `window` steps after the order came. `evaluate()` then returns the loss of each held-out document, in
        nats, always of the same ones in the same order. What came out is reported, and the policy learns from it.
        After that the state of now is restored, and the order is carried out exactly as without arms.

        Nothing that the loop logs in these steps is recorded: `guard.arm` names the arm to a loop that keeps a record
        of its own. Where no arms can be tried (several ranks, data or checkpoints that cannot go back), one warning
        says why. Call it once, before the loop. Raises ValueError for a `share` that is not above 0, for a `window`
        below 1, and for an `evaluate` that is no function.
        """
        from lossguard.guard.arms import Arms  # most loops have none

        self._arms = Arms(
            *(self.run, self.checkpoints, self._position, self.remedies, evaluate, share, window, self._log_once),
            is_interrupted=lambda: self.interrupted,
        )
        if self.ranks.size > 1 or self.run.num_ranks > 1:
            self._arms.give_up("they need a run of one process")

    def gate(self, *optimizers: Any, deviations: float = DEVIATIONS) -> "Gate":
        """A gate: its `step(loss, grad_norm)` takes the step of these optimizers of torch, except poisoned ones.

        An update is skipped, on the device and on all ranks alike, if loss or gradient norm is not finite, or lies more
        than `deviations` robust standard deviations above its level in the last steps of the run. The bounds belong to
        the checkpoints: a rollback restores them. Call it once, before the loop, on every rank, with all optimizers.
        Raises ValueError for a second call, and for what is no optimizer of torch.
        """
        from lossguard.guard.gate import Gate  # whoever has an optimizer of torch has loaded torch

        if self._position.gate is not None:
            raise ValueError("guard.gate was called before: give it all optimizers in one call")
        self._position.gate = gate = Gate(optimizers, run=self.run, deviations=deviations, tell=self._log_once.warn)
        self.run.add_config({"gate": {"deviations": deviations}})
        return gate

    def steps(self, batches: Indexable | Iterable[Any], until: int) -> Iterator[tuple[int, Any]]:
        """Yield (step, batch) up to step `until` - 1, from the newest checkpoint (see `resume_from`) if there is one.

        `batches` is anything with `__getitem__` by absolute batch index, such as a list or `lossguard.torch.Drawn` (a
        skip is a jump, a replay is exact), a DataLoader (the same), or any iterable (skipped batches are read and
        dropped). An iterator cannot go back: after a rollback its next batches follow.

        Raises ConfigurationError while another process writes the checkpoints, where they leave out an object that a
        step depends on, such as the scheduler of an optimizer, and for a `resume_from` without a checkpoint, ValueError
        for an empty sequence and for data that cannot be read again in the same order, CheckpointError when no
        checkpoint is intact or a new run finds the checkpoints of another run, and CheckpointMismatch when a restore is
        not exact, or fails half-way and cannot be undone.
        """
        source = BatchSource(batches)
        if hasattr(self.checkpoints, "check_complete"):
            self.ranks.run_on_all(self.checkpoints.check_complete, *source.parts_with_state())
        self.comparison.begin(source)
        if is_step(until):
            self.run.add_config({}, total_steps=until)
        self.ledger.period = source.num_batches if self.skip_samples == "run" else None
        if (decode := self.decode) is not None and source.state is None:  # any batch can be read at any time
            self.preflight.read_text = lambda index: decode(source.get(index))
        try:
            sample_skips = getattr(source.state, "sample_skips", None)
            first_available = source.first_available
            at = self.open(until=until, first_available=first_available, data=source.state, sample_skips=sample_skips)
            while not at.stop and at.step < until:
                began = time.perf_counter()
                try:
                    batch = source.get(at.batch, since=at.since)
                except StopIteration:
                    break
                self.run.data_seconds = time.perf_counter() - began
                self.comparison.add(at.batch, batch)
                yield at.step, batch
                if self._arms is not None and (order := self._rollback_to_come()) is not None:
                    yield from self._arms.play(order, source, until, self.tell)
                at = self.boundary()
            self.close()
        finally:
            self.abandon()
            source.close()

    def _rollback_to_come(self) -> Order | None:
        """The order that the next boundary will carry out, if it is a rollback."""
        order = self._inbox.peek()
        if order is None or order.kind is not OrderKind.ROLLBACK:
            return None
        return None if self.limits.refusal(order, step=self.step + 1, until=self._until) else order
