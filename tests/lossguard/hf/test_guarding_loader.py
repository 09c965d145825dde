from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lossguard.hf.guarding import Filling, Loader, empty_like
from lossguard.hf.measuring import Hooks

pytestmark = pytest.mark.slow  # importing transformers takes seconds


def test_to_others_it_is_the_loader_that_it_stands_for_and_to_the_trainer_it_is_endless() -> None:
    begun: list[int] = []
    given: Iterator[int] = iter(range(7))

    class Inner(list[int]):
        batch_size = 8

    loader = Loader(Inner([10, 20]), 1_000, begin=lambda: begun.append(1), next_micro_batch=lambda: next(given))
    assert (list(loader), len(loader), begun) == ([10, 20], 2, [])
    assert (loader.batch_size, hasattr(loader, "dataset")) == (8, False)
    loader.set_epoch(0)
    assert [len(loader), next(iter(loader)), next(loader), begun] == [1_000, 0, 1, [1]]
    assert (list(loader), len(loader)) == ([10, 20], 2)


def test_an_empty_micro_batch_has_no_tokens_and_the_same_names() -> None:
    empty = empty_like({"labels": torch.ones(2, 5), "input_ids": torch.ones(2, 5), "name": "kept"})
    assert isinstance(empty, Filling)
    assert empty["labels"][..., 1:].ne(-100).sum() == 0
    assert (empty["input_ids"].numel(), empty["name"]) == (0, "kept")


def test_an_empty_micro_batch_can_be_made_of_any_batch() -> None:
    assert empty_like({"scale": torch.tensor(2.0)}) == {"scale": torch.tensor(2.0)}
    assert empty_like((torch.ones(2, 5), torch.ones(2))) == {}


class Owner:
    kept = "of the class"

    def method(self, value: int) -> int:
        return value


def test_what_was_replaced_is_as_it_was_also_what_was_replaced_twice() -> None:
    owner, hooks = Owner(), Hooks()
    own: Any = lambda value: -value  # noqa: E731
    other = Owner()
    other.method = own  # type: ignore[method-assign]
    for each in (owner, other):
        hooks.wrap(each, "method", lambda original, value: original(value) + 1)
        hooks.wrap(each, "method", lambda original, value: original(value) * 10)
    hooks.set(owner, "kept", "changed")
    assert (owner.method(1), other.method(1), owner.kept) == (20, 0, "changed")
    hooks.remove()
    assert (vars(owner), other.method, owner.kept) == ({}, own, "of the class")
    hooks.remove()
    assert owner.method(1) == 1
