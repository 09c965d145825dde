"""The hook on the Trainer of transformers: it resumes where the launcher says, and leaves the skipped batches out.

The skip is made in the batch sampler, below `skip_first_batches`: the Trainer then counts the batches that it gets, and
its own way to resume is right. Each of its epochs yields as many batches as before; what an epoch has left out, the
next ones make up for. So the data of step n is the n-th batch that is not skipped, whatever was restarted.
"""

import json
import os
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from .journal import Journal, warn_once

RESUME_VARIABLE = "LOSSGUARD_RESUME_CHECKPOINT"
SKIPS_VARIABLE = "LOSSGUARD_SKIPS"
LOADER = "get_train_dataloader"


def hook(module: ModuleType, journal: Journal) -> None:
    """Wrap `Trainer.train`, and in it the Trainer's `get_train_dataloader`, if the launcher restarts this command."""
    if SKIPS_VARIABLE not in os.environ:
        return
    trainer: Any = module.Trainer
    train = trainer.train
    skips: list[tuple[int, int]] = [(begin, end) for begin, end in json.loads(os.environ[SKIPS_VARIABLE])]

    def hooked_train(self: Any, resume_from_checkpoint: Any = None, *arguments: Any, **named: Any) -> Any:
        make = getattr(self, LOADER)
        own = {LOADER: make} if LOADER in vars(self) else {}
        if skips:  # in this object and until `train` returns, because a subclass may have a loader of its own
            setattr(self, LOADER, lambda: _without(make(), skips, self.args.gradient_accumulation_steps))
        try:
            return train(self, _checkpoint_of(self, resume_from_checkpoint), *arguments, **named)
        finally:
            vars(self).pop(LOADER, None)
            vars(self).update(own)

    trainer.train = hooked_train


def _checkpoint_of(trainer: Any, given: Any) -> Any:
    """Return the launcher's checkpoint for the Trainer that has written it; for others, the script's."""
    ordered = os.environ.get(RESUME_VARIABLE)
    if not ordered or os.path.realpath(trainer.args.output_dir) != os.path.dirname(ordered):
        return given
    return ordered


def _without(loader: Any, skips: Sequence[tuple[int, int]], accumulate: int) -> Any:
    """`loader` with another batch sampler. A loader without one (a stream) stays as it is, and that is said."""
    plain = getattr(loader, "base_dataloader", loader)  # inside of accelerate's
    sampler = getattr(plain, "batch_sampler", None)
    if sampler is None or not hasattr(sampler, "__len__"):
        warn_once("the data of this Trainer is a stream: batches of an order cannot be left out, and are trained on")
    else:
        object.__setattr__(plain, "batch_sampler", LedgerSampler(sampler, skips, accumulate))
    return loader


class LedgerSampler:
    """The batches of `inner`, epoch after epoch, without those that are skipped; each epoch has the usual number."""

    def __init__(self, inner: Any, skips: Sequence[tuple[int, int]], accumulate: int) -> None:
        """`skips`: ranges of optimizer steps' batches from 0; `accumulate`: micro-batches of each."""
        self._inner = inner
        self._epoch = 0
        self._length = len(inner)
        self._skips = sorted((self._first(begin, accumulate), self._first(end, accumulate)) for begin, end in skips)
        self.batch_size = getattr(inner, "batch_size", None)
        self.drop_last = getattr(inner, "drop_last", False)
        self.sampler = self  # who sets the epoch looks for it here

    def set_epoch(self, epoch: int) -> None:
        """The Trainer's epoch, which is not that of the data once batches were skipped."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches e * len up to (e + 1) * len - 1 of the Trainer's epoch e that are not skipped."""
        index, left = self._nth_free(self._epoch * self._length), self._length
        while left:
            data_epoch, offset = divmod(index, self._length)
            _set_epoch(self._inner, data_epoch)
            for place, samples in enumerate(self._inner):
                number = data_epoch * self._length + place
                if place < offset or any(begin <= number < end for begin, end in self._skips):
                    continue
                yield samples
                left -= 1
                if not left:
                    return
            index = (data_epoch + 1) * self._length

    def _first(self, batch: int, accumulate: int) -> int:
        """The first micro-batch of an optimizer step: the last step of an epoch may have fewer."""
        epoch, place = divmod(batch, -(-self._length // accumulate))
        return epoch * self._length + place * accumulate

    def _nth_free(self, number: int) -> int:
        index, covered = number, 0
        for begin, end in self._skips:
            if max(begin, covered) > index:
                break
            index += max(0, end - max(begin, covered))
            covered = max(covered, end)
        return index


def _set_epoch(sampler: Any, epoch: int) -> None:
    """Tell the samplers below of the epoch, on which their order depends."""
    below: list[Any] = [sampler]
    seen: list[Any] = []
    while below:
        each = below.pop()
        if each is None or any(each is one for one in seen):
            continue
        seen.append(each)
        if hasattr(each, "set_epoch"):
            each.set_epoch(epoch)
        below += [getattr(each, name, None) for name in ("sampler", "batch_sampler")]
