from typing import Any

import pytest

from lossguard.hf.loader import Hooks

pytestmark = pytest.mark.slow  # importing transformers takes seconds


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
