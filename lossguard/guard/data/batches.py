"""The batches of a DataLoader by absolute index: a skip is a jump, and a replay is exact.

Micro-batch m is number m % n of epoch m // n, where n is the length of the loader. The order of an epoch is that of the
loader itself, whatever way it is reached, and a loop that never goes back draws the same random numbers as without this
module. Going back, or entering an epoch in its middle, costs the loop's generators nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from lossguard.checkpoints.state import generators
from lossguard.guard.data import loaders
from lossguard.guard.data.comparison import END, Repeats, StepOnDemand
from lossguard.guard.data.loaders import (
    Change,
    EpochOrders,
    changed_generators,
    draw_base_seed,
    draws_base_seed,
    end_workers,
    entered_at,
    indices_in,
    is_by_index,
    leave,
    refuse_without_order,
)
from lossguard.guard.data.random_numbers import OwnNumbers
from lossguard.guard.data.skipped_samples import Index, SampleSkips, SkippedSamples, index_of
from lossguard.vocabulary.errors import ConfigurationError, LogOnce

NOTHING = "the loader gave no batch: there is nothing to train on"


class MicroBatches:
    """The micro-batches of a loader, one after the other, from any absolute index on.

    `set_epoch(epoch)` is called before an iterator is made. By default it calls `set_epoch` of the loader (accelerate's
    has it), or else of its samplers and of the dataset, where they have it.
    `accumulate`: micro-batches of a step, which a run that is continued must have as before.
    `read_end`: whether each iterator is asked for its end, as a `for` loop does; Lightning does not, and at its end a
    sampler with a generator of its own draws from it once more.

    Raises ValueError for an empty loader, and for one that cannot give its batches again in the same order.
    """

    def __init__(
        self,
        loader: Any,
        *,
        accumulate: int = 1,
        set_epoch: Callable[[int], object] | None = None,
        read_end: bool = True,
    ) -> None:
        refuse_without_order(loader)
        self.loader, self.accumulate = loader, accumulate
        self._read_end = read_end
        self.length: int | None = len(loader) if is_by_index(loader) else None
        """Micro-batches of an epoch; None until a dataset that is iterated over has ended once."""
        if self.length == 0:
            raise ValueError("the loader is empty: there is nothing to train on")
        self.position = 0
        """Absolute index of the micro-batch that comes next."""
        self._set_epoch = set_epoch or partial(loaders.set_epoch, loader)
        self._since = 0  # the micro-batch at which the state of the loop's generators stands, before any skip
        self._orders = EpochOrders(loader)
        self._numbers = None if is_by_index(loader) else OwnNumbers()
        """Random numbers of a stream, so that it can be read again whatever the loop has drawn since."""
        self._opened: Any = None  # the loader, or a part of it, that `_iterator` reads
        self._epoch_start = 0
        self._iterator: Iterator[Any] = iter(())
        self._num_given = 0  # by the iterator
        self._ahead: list[Any] = []
        self._has_workers = False  # those that persist, if the loader has such
        self.uses_numbers_of_loop: bool | None = None
        """True if loading a batch draws from the generators of this process; None until the second one was loaded."""
        self.skipped = SkippedSamples()
        """The samples that later epochs leave out."""
        self._lasting: Any = None  # the loader that leaves them out, if its workers persist
        self._log_once = LogOnce()

    @property
    def repeats(self) -> Repeats:
        """When a micro-batch that is read again must be the same: what is drawn while samples are loaded is not."""
        if self._numbers is not None:
            return Repeats.ALWAYS
        is_drawn = getattr(self.loader, "num_workers", 0) or self.uses_numbers_of_loop is not False
        return Repeats.NEVER if is_drawn else Repeats.UNTIL_SKIP

    def seek(self, position: int, *, since: int | None = None) -> None:
        """Make `position` the next micro-batch. `since`: the one that the loop's present state would read next.

        Those in between are skipped. An epoch that begins between them costs the loop's generators what it always does.
        """
        was_left = since is not None and since <= self._epoch_start < self.position  # the state is that of before
        if position != self.position or was_left:
            self.close()
            self.position = position
        self._since = position if since is None else since

    def __iter__(self) -> "MicroBatches":
        return self

    def __next__(self) -> Any:
        if not self.ready() and not self.ready():  # the second time at the beginning of the next epoch
            raise ValueError(NOTHING)
        self.position += 1
        self._since = self.position
        if self.length is None and self.is_last():
            self.length = self.position
        return self._ahead.pop()

    def ready(self) -> bool:
        """Load micro-batch `position`. False if its epoch has ended before it: then `length` is known."""
        if self._ahead:
            return True
        if self._opened is not None and self.at_end():
            self._end_epoch()
        batch = self._open() if self._opened is None else self._read()
        if batch is END:
            self._end_early()
            return False
        self._ahead = [batch]
        return True

    def at_end(self) -> bool:
        """Return True if the micro-batch that was read last is the last one of its epoch."""
        return self.length is not None and self.position > self._epoch_start and self.position % self.length == 0

    def is_last(self) -> bool:
        """Return True if accelerate's loader says so of the micro-batch that was read last."""
        return bool(getattr(self._opened, "end_of_dataloader", False))

    def mark_last(self, is_last: bool) -> None:
        """Let accelerate take the micro-batch in use for the last of its epoch, or not: there it ends a step."""
        if hasattr(self._opened, "end_of_dataloader"):
            self._opened.end_of_dataloader = is_last

    def close(self) -> None:
        """Give up the iterator, with what was loaded ahead."""
        if hasattr(self._iterator, "close"):
            self._iterator.close()
        leave(self._opened)
        self._iterator, self._opened, self._ahead = iter(()), None, []

    def end(self) -> None:
        """Give up the iterator, and end the workers that persist.

        The garbage collector would close their queues first, and then wait five seconds for each worker.
        """
        self.close()
        for loader in (self.loader, self._lasting):
            end_workers(loader)
        self._has_workers = False

    def state_dict(self) -> dict[str, Any]:
        """Return what a new process cannot know, in plain values."""
        state: dict[str, Any] = {"length": self.length, "accumulate": self.accumulate}
        state |= {"orders": self._orders.state_dict(), "skipped_samples": self.skipped.state_dict()}
        return state if self._numbers is None else state | {"seeds": dict(self._numbers.seeds)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state; `seek` afterwards. What this process has seen of later epochs stays.

        Raises ConfigurationError where the numbers of batches have come to mean other samples.
        """
        length, accumulate = state["length"], state["accumulate"]
        if accumulate != self.accumulate or (length and self.length and length != self.length):
            raise ConfigurationError(
                f"the checkpoint has {length or 'unknown'} micro-batches an epoch, {accumulate} a step; this has "
                f"{self.length or 'unknown'}, {self.accumulate}:\n"
                "continue with the same batch size, accumulation and number of processes"
            )
        self.close()  # a sampler may still draw from a generator that is restored
        self.length = self.length or state["length"]
        self._orders.load_state_dict(state["orders"])
        if self._numbers is not None and "seeds" in state:
            self._numbers = OwnNumbers(state["seeds"])
        self.skipped.load_state_dict(state["skipped_samples"])

    def forget_since(self, state: Mapping[str, Any]) -> None:
        """Forget the epochs that have begun since this state, which was loaded just now."""
        self._orders.forget_since(state["orders"])

    def sample_skips(self, first_of: Callable[[int], int], **options: Any) -> SampleSkips | None:
        """Return an object that finds the samples of skipped batches (see `SampleSkips`), or None without indices."""
        return SampleSkips(self, first_of, **options) if is_by_index(self.loader) else None

    @property
    def epochs(self) -> set[int]:
        """The numbers of the epochs that have begun."""
        return self._orders.begun

    def indices(self, first: int, end: int) -> list[Index] | None:
        """Return the indices of the samples in micro-batches `first` to `end` - 1, without loading these.

        The micro-batches belong to one epoch, which has begun. Returns None if an index is neither a number nor a text.
        """
        assert self.length is not None
        epoch, offset = divmod(first, self.length)
        self._set_epoch(epoch)
        with self._orders.drawing_again(epoch):
            batches = indices_in(self.loader, epoch, range(offset, offset + end - first))
        self._set_epoch(self._epoch_start // self.length)
        indices = [index_of(each) for batch in batches for each in (batch if isinstance(batch, list) else [batch])]
        return None if None in indices else indices  # type: ignore[return-value]

    def _open(self) -> Any:
        """Make an iterator at `position`, and return its first micro-batch, or END."""
        epoch, offset = divmod(self.position, self.length) if self.length else (0, self.position)
        if self.length:
            for skipped in range(-(-self._since // self.length), epoch):  # each costs what it always does
                self._begin(skipped, self.length - 1)
                self.close()
        return self._begin(epoch, offset)

    def _begin(self, epoch: int, offset: int) -> Any:
        self._epoch_start = epoch * (self.length or 0)
        self._set_epoch(epoch)
        by_index, base_seed = is_by_index(self.loader), draws_base_seed(self.loader, epoch)
        workers_persist = getattr(self.loader, "persistent_workers", False)  # with the base seed of epoch 0
        change: Change | None = None
        if by_index and self.length is not None and self.skipped.concern((epoch + 1) * self.length):
            change = partial(self.skipped.without, first=self._epoch_start)
        if change is not None and workers_persist and not offset and not base_seed:
            self._opened = self._lasting = self._lasting or self._with_lasting_workers()
        elif by_index and (offset or change is not None or (workers_persist and self._has_workers == base_seed)):
            self._opened = entered_at(self.loader, offset, base_seed=base_seed, change=change)
        else:
            self._opened, self._has_workers = self.loader, True
        if hasattr(self._opened, "iteration"):
            self._opened.iteration = epoch  # accelerate counts how often a loader was iterated over
        with self._orders.drawing(epoch, is_due=self._epoch_start >= self._since):
            if self._numbers is not None:
                self._numbers.begin(epoch)
                draw_base_seed(self.loader, epoch)  # which the loop loses to the loader without this module, too
            with self._lent():
                self._iterator, self._num_given = iter(self._opened), 0
            for _ in range(0 if by_index else offset):  # a stream is skipped by reading it
                if self._read() is END:
                    return END
            return self._read()

    def _with_lasting_workers(self) -> Any:
        end_workers(self.loader)
        self._has_workers = False

        def change(batches: Iterable[Any], **others: Any) -> Iterator[Any]:
            return self.skipped.without(batches, first=self._epoch_start, **others)

        return entered_at(self.loader, 0, base_seed=False, change=change, persistent_workers=True)

    def _read(self) -> Any:
        before = None if self.uses_numbers_of_loop is not None or self._num_given != 1 else generators()
        with self._lent():
            batch = next(self._iterator, END)
        if batch is not END:
            self._num_given += 1
        if before is not None:
            changed = changed_generators(before, generators())
            self.uses_numbers_of_loop = bool(changed)
            if changed:
                self._log_once.warn(
                    f"loading batches draws from the random numbers of {' and '.join(sorted(changed))}: "
                    "after a rollback, augmentations may differ"
                )
        return batch

    def _lent(self) -> AbstractContextManager[None]:
        return nullcontext() if self._numbers is None else self._numbers.lent()

    def _end_epoch(self) -> None:
        with self._lent():
            has_more = self._read_end and next(self._iterator, END) is not END  # most loaders clean up here
        if has_more:
            self._warn_of_length("more")
        self.close()

    def _end_early(self) -> None:
        """The iterator has ended before `length` micro-batches, or that length was not known."""
        if not self._num_given:
            raise ValueError(NOTHING)
        if self.length is None:
            self.length = self._num_given
        elif self.position % self.length:
            self._warn_of_length("fewer")
            self.position += -self.position % self.length
        self.close()

    def _warn_of_length(self, how: str) -> None:
        self._log_once.warn_once(
            how, f"the loader gave {how} batches than the {self.length} before: its order is not fixed"
        )


class Batches:
    """Batch i of a loader: the `accumulate` micro-batches of optimizer step i; without a number, the batch itself.

    A step never spans two epochs: if `accumulate` does not divide the length of an epoch, its last step has fewer
    micro-batches, as in accelerate, Lightning and the Hugging Face Trainer.

    Give it to `Guard.steps`, which also keeps its state in the checkpoints. The micro-batches of a step are a sequence,
    and each is loaded when it is first asked for.

    Raises ValueError for what `MicroBatches` refuses, and for an `accumulate` that accelerate has otherwise.
    """

    advice = "The loader must give the same order each time"

    def __init__(
        self, loader: Any, *, accumulate: int | None = None, set_epoch: Callable[[int], object] | None = None
    ) -> None:
        if accumulate is not None and accumulate < 1:
            raise ValueError(f"accumulate={accumulate} must be at least 1 micro-batch")
        self._gives_sequences, self.accumulate = accumulate is not None, accumulate or 1
        self.micro_batches = MicroBatches(loader, accumulate=self.accumulate, set_epoch=set_epoch)
        self.sample_skips = self.micro_batches.sample_skips(lambda index: self.span(index)[0])
        """Finds the samples of skipped batches; None if samples have no index."""
        _check_accelerate(getattr(loader, "gradient_state", None), self.accumulate, self.micro_batches.length)

    def parts_with_state(self) -> tuple[list[Any], list[Any]]:
        """Return (objects whose position is known here, samplers with another state, on which their order depends)."""
        return loaders.parts_with_state(self.micro_batches.loader)

    def span(self, index: int) -> tuple[int, int]:
        """The first micro-batch of batch `index`, and how many it has (at most, before the first epoch has ended)."""
        length = self.micro_batches.length
        if length is None:
            return index * self.accumulate, self.accumulate
        epoch, within = divmod(index, -(-length // self.accumulate))
        first = within * self.accumulate
        return epoch * length + first, min(self.accumulate, length - first)

    @property
    def repeats(self) -> Repeats:
        """When a batch that is read again must be the same."""
        return self.micro_batches.repeats

    def pass_of(self, index: int) -> int:
        """Return the epoch of batch `index`; 0 before the first one has ended."""
        length = self.micro_batches.length
        return 0 if length is None else index // -(-length // self.accumulate)

    @property
    def uses_numbers_of_loop(self) -> bool | None:
        """True if loading a batch draws from the generators of this process; None: it is not known yet."""
        return self.micro_batches.uses_numbers_of_loop

    def seek(self, index: int, *, since: int | None = None) -> None:
        """Make batch `index` the next one; see `MicroBatches.seek`."""
        for _ in range(2):  # the second time with the length of an epoch, if it became known
            first = self.span(index)[0]
            self.micro_batches.seek(first, since=None if since is None else self.span(since)[0])
            if self.micro_batches.length is not None or self.micro_batches.ready():
                break

    def __getitem__(self, index: int) -> Any:
        if self.span(index)[0] != self.micro_batches.position or self.micro_batches.length is None:
            self.seek(index)
        if not self._gives_sequences:
            return next(self.micro_batches)
        num = self.span(index)[1]
        step = _Step(self.micro_batches, num)
        if self.micro_batches.length is None:  # the epoch may end within the step
            step.load(num)
        return step

    def state_dict(self) -> dict[str, Any]:
        """Return what a new process cannot know, in plain values."""
        return self.micro_batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.micro_batches.load_state_dict(state)

    def forget_since(self, state: Mapping[str, Any]) -> None:
        """Forget the epochs that have begun since this state: they were no part of the run."""
        self.micro_batches.forget_since(state)


class _Step(StepOnDemand):
    """The micro-batches of one step of a loader."""

    def __init__(self, micro_batches: MicroBatches, num: int) -> None:
        self._micro_batches = micro_batches
        self._is_last: list[bool] = []
        # No method: a step that refers to itself would hold its micro-batches until Python looks for cycles.
        super().__init__(num, partial(_load_one, micro_batches, self._is_last))

    def __iter__(self) -> Iterator[Any]:
        for index in range(self._num):
            micro_batch = self[index]
            self._micro_batches.mark_last(self._is_last[index])  # others may be loaded already
            yield micro_batch


def _load_one(micro_batches: MicroBatches, is_last: list[bool], place: int) -> Any:
    if place and (micro_batches.at_end() or not micro_batches.ready()):
        return END
    micro_batch = next(micro_batches)
    is_last.append(micro_batches.is_last())
    return micro_batch


def _check_accelerate(gradients: Any, accumulate: int, length: int | None) -> None:
    num_steps = getattr(gradients, "num_steps", 1)
    if num_steps not in (1, accumulate):
        raise ValueError(
            f"Accelerator(gradient_accumulation_steps={num_steps}) and Batches(accumulate={accumulate}) differ: "
            "give both the same number"
        )
    if num_steps > 1 and not gradients.sync_with_dataloader and (length is None or length % accumulate):
        raise ValueError(
            f"sync_with_dataloader=False: a step of {accumulate} would span two epochs of {length or 'unknown'} "
            "micro-batches; use True"
        )
