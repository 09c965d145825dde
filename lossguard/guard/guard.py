"""The guard drives a training loop of one's own: it yields batches by absolute index, and acts between two steps."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lossguard.guard.controller import Controller
from lossguard.vocabulary.gating import DEVIATIONS

if TYPE_CHECKING:
    from lossguard.guard.gate import Gate

# Batches by absolute index, from any kind of training data.


class Indexable(Protocol):
    """A data order: batch i is always the same batch, so that skipping is a jump and replaying is exact."""

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class Seekable(Indexable, Protocol):
    """An Indexable that must know of jumps, and whose state belongs into checkpoints: `lossguard.torch.Batches`."""

    def seek(self, index: int, /, *, since: int) -> None:
        """The next batch is `index`. The training state is that before batch `since`; those in between are skipped."""

    def state_dict(self) -> dict[str, Any]:
        """The state, in plain values."""

    def load_state_dict(self, state: Any, /) -> None:
        """Restore a state."""


class BatchSource:
    """Reads batches by index from an Indexable, and in sequence from any other iterable."""

    def __init__(self, batches: Any) -> None:
        """`batches` is an Indexable or an iterable. Raises ValueError for an empty sequence."""
        self._batches = batches
        self.state: Seekable | None = batches if isinstance(batches, Seekable) else None
        """What of the batches belongs into checkpoints."""
        self._is_indexed = hasattr(batches, "__getitem__")
        self._length = len(self._batches) if self._is_indexed and hasattr(batches, "__len__") else None
        if self._length == 0:
            raise ValueError("batches is empty: there is nothing to train on")
        self._iterator: Iterator[Any] = iter(())
        self._position = 0  # index of the batch that the iterator yields next

    @property
    def can_peek(self) -> bool:
        """Whether any batch can be read at any time, without an effect on the others."""
        return self._is_indexed and self.state is None

    def first_available(self, index: int) -> int:
        """The first index at or after `index` that can still be read: an iterator cannot go back."""
        return max(index, self._position) if self._is_single_pass() else index

    def get(self, index: int, *, since: int | None = None) -> Any:
        """Batch `index`; finite data starts again at its end. Raises StopIteration when an iterator is exhausted.

        `since`: the batch that the training state would use next; those in between are skipped. Default: `index`.
        """
        if self.state is not None:
            self.state.seek(index, since=index if since is None else since)
        if self._is_indexed:
            return self._batches[index if self._length is None else index % self._length]
        if not self._position or index < self._position:
            self._iterator, self._position = iter(self._batches), 0
        while self._position <= index:
            batch = self._next()
            self._position += 1
        return batch

    def _next(self) -> Any:
        """The next batch; an exhausted iterable starts again, unless it is an iterator or empty."""
        try:
            return next(self._iterator)
        except StopIteration:
            if self._is_single_pass():
                raise
        self._iterator = iter(self._batches)
        return next(self._iterator)

    def _is_single_pass(self) -> bool:
        return not self._is_indexed and hasattr(self._batches, "__next__")


# The guard drives a training loop of one's own: it yields batches, and does what is due at step boundaries.


class Guard(Controller):
    """Yields steps and batches to a loop, and takes the run back when the collector orders a rollback.

    `every`: steps between two checkpoints. `signals`: signals that stop the run after the current step, with a
    checkpoint; a second SIGINT raises KeyboardInterrupt. `ranks`: the processes that train the run together, by default
    those of torch.distributed if it is initialised. All ranks act at the same step: an order to rank 0, a signal on any
    rank and a restore that fails on one rank concern all of them, at the boundary where all know of it.
    `skips`: batch ranges that the run never uses, in addition to those that it has skipped before.
    `limits`: what orders may do at most (see `Limits`); LOSSGUARD_LIMITS and the file `limits` in the run's folder make
    them stricter, and the file `no-orders` in that folder, or `guard.observe()`, ends all obedience.
    `decode(batch)`: the text of a batch. A person who is asked to approve a rollback then sees the beginning of the
    first batches that it skips. It is called on rank 0 between two steps, for at most 3 batches of a proposal; whatever
    it raises is reported, and training continues. It needs batches that are read by index and keep no position of their
    own: not an iterator, and not `lossguard.torch.Batches`, whose loader would have to move.

    Every restore is verified. `steps` raises CheckpointMismatch if a restore is not exact, or fails half-way and cannot
    be undone, and RanksError if a rank has left. A guard raises no other errors into a running loop: in these cases,
    continuing would train something else than the run.
    """

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
        """Yield (step, batch) up to step `until` - 1, starting from the newest checkpoint if there is one.

        `batches` is anything with `__getitem__` by absolute batch index (a skip is a jump, a replay is exact), or any
        iterable (skipped batches are read and dropped). Raises ConfigurationError while another process writes the
        checkpoints, ValueError for an empty sequence, CheckpointError when no checkpoint is intact or a new run finds
        the checkpoints of another run, and CheckpointMismatch when a restore is not exact, or fails half-way and cannot
        be undone.
        """
        source = BatchSource(batches)
        if self.decode is not None and source.can_peek:
            self.preflight.read_text = partial(_text_of, source, self.decode)
        try:
            at = self.open(until=until, first_available=source.first_available, data=source.state)
            while not at.stop and at.step < until:
                began = time.perf_counter()
                try:
                    batch = source.get(at.batch, since=at.since)
                except StopIteration:
                    break
                self.run.data_seconds = time.perf_counter() - began
                yield at.step, batch
                at = self.boundary()
            self.close()
        finally:
            self.abandon()


def _text_of(source: BatchSource, decode: Callable[[Any], str], index: int) -> str:
    return decode(source.get(index))
