import math
from typing import Any

import pytest

from lossguard.vocabulary.orders import Order


def test_an_order_is_known_by_its_key_and_without_one_by_its_id() -> None:
    assert Order.from_wire({"id": 1, "kind": "hold", "key": "a", "new": 1}).identity == "a"
    assert Order.from_wire({"id": 1, "kind": "hold"}).identity == 1


def test_an_order_names_remedies_and_that_of_an_older_collector_none() -> None:
    order = Order.from_wire({"id": 1, "kind": "rollback", "remedies": ["clip", "z_loss"]})
    assert order.remedies == ("clip", "z_loss")
    assert order.describe() == "; remedies that are switched on: clip, z_loss"
    assert Order.from_wire({"id": 1, "kind": "rollback"}).remedies == ()
    assert Order.from_wire({"id": 1, "kind": "rollback", "remedies": None}).remedies == ()
    with pytest.raises(ValueError, match="a list of names"):
        Order.from_wire({"id": 1, "kind": "rollback", "remedies": ["clip", 7]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "1"),
        ("kind", "dance"),
        ("rewind_to", 1.5),
        ("skip_from", True),
        ("skip_to", "9"),
        ("lr_scale", "half"),
        ("lr_scale", math.nan),
        ("lr_scale", True),
        ("lr_scale", 10**309),
        ("remedies", "clip"),
        ("remedies", {"clip": 1}),
        ("key", 7),
        ("reason", None),
    ],
)
def test_an_order_that_could_not_be_executed_is_not_decoded(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=str(value)):
        Order.from_wire({"id": 1, "kind": "rollback", name: value})
