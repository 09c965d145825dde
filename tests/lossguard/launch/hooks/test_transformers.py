from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard import Ledger, Skip
from lossguard.launch.hooks.journal import Journal
from lossguard.launch.hooks.transformers import SKIPS_VARIABLE, LedgerSampler, hook


class Epochs:
    """Batches of an epoch: (epoch, place)."""

    batch_size, drop_last = 1, False

    def __init__(self, length: int) -> None:
        self.length, self.epoch = length, 0
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Any:
        return iter([(self.epoch, place) for place in range(self.length)])


SKIPS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=3)


@given(skips=SKIPS, length=st.integers(1, 9), resumed=st.integers(0, 30))
def test_epoch_after_epoch_the_batches_are_those_that_are_not_skipped_wherever_it_resumes(
    skips: list[tuple[int, int]], length: int, resumed: int
) -> None:
    ranges = [(begin, begin + width) for begin, width in skips]
    sampler = LedgerSampler(Epochs(length), ranges, 1)
    epoch, place = divmod(resumed, length)
    found: list[Any] = []
    for number in range(epoch, epoch + 3):
        sampler.set_epoch(number)
        batches = list(sampler)
        assert len(batches) == len(sampler) == length
        found += batches
    ledger = Ledger(Skip(*each) for each in ranges)
    expected = [divmod(ledger.nth_free(step), length) for step in range(resumed, resumed + len(found) - place)]
    assert found[place:] == expected


def test_a_skip_counts_optimizer_steps_and_the_last_one_of_an_epoch_may_be_smaller() -> None:
    """Five micro-batches, two for each step: the third step of an epoch has one."""
    sampler = LedgerSampler(Epochs(5), [(1, 3)], 2)
    assert list(sampler) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_it_shows_what_accelerate_looks_for() -> None:
    sampler = LedgerSampler(Epochs(4), [(0, 1)], 1)
    assert (sampler.batch_size, sampler.drop_last, sampler.sampler) == (1, False, sampler)


class BaseTrainer:
    """The part of transformers' Trainer that the hook needs: `train` returns the batches of its first epoch."""

    args = SimpleNamespace(gradient_accumulation_steps=1, output_dir="out")

    def get_train_dataloader(self) -> Any:
        return SimpleNamespace(batch_sampler=Epochs(4))

    def train(self, resume_from_checkpoint: Any = None) -> list[Any]:
        return list(self.get_train_dataloader().batch_sampler)


class OwnLoader(BaseTrainer):
    """As GRPOTrainer of TRL: it calls nothing of the class above."""

    def get_train_dataloader(self) -> Any:
        return SimpleNamespace(batch_sampler=Epochs(3))


class ExtendedLoader(BaseTrainer):
    def get_train_dataloader(self) -> Any:
        return super().get_train_dataloader()


@pytest.mark.parametrize(
    ("kind", "batches"),
    [
        (BaseTrainer, [(0, 0), (0, 2), (0, 3), (1, 0)]),
        (ExtendedLoader, [(0, 0), (0, 2), (0, 3), (1, 0)]),
        (OwnLoader, [(0, 0), (0, 2), (1, 0)]),
    ],
)
def test_a_trainer_with_a_loader_of_its_own_leaves_the_batches_out_once_too(
    kind: type[BaseTrainer], batches: list[Any], journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SKIPS_VARIABLE, "[[1, 2]]")
    monkeypatch.setattr(BaseTrainer, "train", BaseTrainer.train)  # set back afterwards
    hook(SimpleNamespace(Trainer=BaseTrainer), journal)  # type: ignore[arg-type]
    trainer = kind()
    assert trainer.train() == trainer.train() == batches
    assert vars(trainer) == {}
