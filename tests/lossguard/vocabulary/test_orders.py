import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard import ConfigurationError, Ledger, Skip
from lossguard.vocabulary.orders import MAX_LINE, Order, problem_with, read_key, sign, signed_text
from lossguard.vocabulary.states import OrderKind

LEAST: dict[str, Any] = {"id": 1, "key": "k1", "kind": "rollback"}


def test_an_order_has_a_key_and_may_have_fields_that_a_later_release_adds() -> None:
    assert Order.from_wire(LEAST | {"new": 1}) == Order.from_wire(LEAST)
    with pytest.raises(KeyError, match="key"):
        Order.from_wire({"id": 1, "kind": "rollback"})


def test_an_order_may_name_remedies() -> None:
    order = Order.from_wire(LEAST | {"remedies": ["clip", "z_loss"]})
    assert order.remedies == ("clip", "z_loss")
    assert order.describe(300) == "rolled back to step 300, with clip, z_loss"
    assert Order.from_wire(LEAST).remedies == Order.from_wire(LEAST | {"remedies": None}).remedies == ()
    with pytest.raises(ValueError, match="a list of names"):
        Order.from_wire(LEAST | {"remedies": ["clip", 7]})


def test_a_rollback_is_one_short_line_with_the_first_sentence_of_its_reason() -> None:
    order = Order(id=1, key="k1", kind=OrderKind.ROLLBACK, skip_from=319, skip_to=378)
    changes = "rolled back 333 -> 300, skipping 59 batches (319-377)"
    assert order.describe(300, 333) == changes
    because = "The loss stayed 1.65 nats above the expected one"
    assert replace(order, reason=f"{because}. It costs 43 steps.").describe(300, 333) == f"{changes}: {because}"
    long = replace(order, reason=because + " in all of these steps" * 9).describe(300, 333)
    assert long.startswith(f"{changes}: The loss stayed 1.65")
    assert long.endswith(" ..")
    assert len(long) <= MAX_LINE


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
        Order.from_wire(LEAST | {name: value})


ranges = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda ends: Skip(min(ends), max(ends)))


@given(st.lists(ranges, max_size=8), st.integers(0, 60))
def test_the_next_free_batch_is_the_first_one_that_no_range_covers(skips: list[Skip], index: int) -> None:
    covered = {batch for skip in skips for batch in range(skip.skip_from, skip.skip_to)}
    expected = next(batch for batch in range(index, 200) if batch not in covered)
    assert Ledger(skips).next_free(index) == expected


def test_a_range_is_remembered_once_with_its_reason() -> None:
    ledger = Ledger([Skip(5, 9, "spike"), Skip(5, 9, "spike"), Skip(3, 3, "empty")])
    assert ledger.skips == [Skip(5, 9, "spike")]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 10)), max_size=5), st.integers(0, 60))
def test_the_batch_of_a_step_is_the_one_that_a_walk_without_the_skips_reaches(
    skips: list[tuple[int, int]], number: int
) -> None:
    ledger = Ledger(Skip(begin, begin + width) for begin, width in skips)
    index = ledger.next_free(0)
    for _ in range(number):
        index = ledger.next_free(index + 1)
    assert ledger.nth_free(number) == index


@given(
    skips=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=4),
    period=st.integers(1, 15),
    index=st.integers(0, 80),
)
def test_with_a_period_a_range_is_skipped_in_all_later_passes_unless_nothing_would_be_left(
    skips: list[tuple[int, int]], period: int, index: int
) -> None:
    def is_free(batch: int) -> bool:
        return not any(begin <= batch and (batch - begin) % period < width for begin, width in skips)

    ledger = Ledger(Skip(begin, begin + width) for begin, width in skips)
    once = ledger.next_free(index)
    ledger.period = period
    free = [batch for batch in range(index, index + period) if is_free(batch)]
    assert ledger.next_free(index) == (free[0] if free else once)


KEY = "0123456789abcdef" * 2
BODY: dict[str, Any] = {
    "id": 7, "key": "k7", "kind": "rollback", "incident": 1, "rewind_to": 40, "skip_from": 40, "skip_to": 60,
    "lr_scale": 0.5, "remedies": ["z_loss"], "reason": "a spike", "segment": "s-0", "step": 90,
    "expires_at": 1_800_000_000.0, "expires_step": 190, "approved_by": "ada",
}  # fmt: skip


def received(body: dict[str, Any], **changes: Any) -> Order:
    """The order after its way through JSON."""
    return Order.from_wire(json.loads(json.dumps(body | changes)))


def problem(order: Order, run: str = "r1", key: str = KEY) -> str | None:
    return problem_with(order.signature, order.signed, run, key)


SIGNED = BODY | {"signature": sign(signed_text(BODY), "r1", KEY)}


def test_a_signed_order_is_believed_however_its_json_is_written() -> None:
    assert problem(received(SIGNED)) is None
    assert problem(received(dict(reversed(SIGNED.items())), expires_at=1_800_000_000)) is None
    assert problem(received(SIGNED, a_later_field=None, another=[])) is None


@given(
    st.sampled_from(sorted(BODY.keys() - {"kind"})).flatmap(
        lambda name: st.tuples(st.just(name), st.just(None) | st.integers(0, 10**6))
    )
)
def test_an_order_of_which_anything_was_altered_is_not_believed(change: tuple[str, Any]) -> None:
    name, value = change
    altered = SIGNED | {name: value}
    expected = signed_text(altered) == signed_text(SIGNED)
    believed = problem_with(altered["signature"], signed_text(altered), "r1", KEY) is None
    assert believed == expected


def test_an_order_of_another_kind_run_or_key_or_without_a_signature_is_not_believed() -> None:
    for change in ({"kind": "hold"}, {"added": 1}):
        assert "altered" in str(problem(received(SIGNED, **change)))
    assert "is another run's" in str(problem(received(SIGNED), run="r2"))
    assert "another LOSSGUARD_ORDER_KEY" in str(problem(received(SIGNED), key="f" * 32))
    assert problem(received(BODY)) == (
        "it is not signed, and this trainer has an order key: give the collector the same LOSSGUARD_ORDER_KEY"
    )
    assert "signature is wrong" in str(problem(received(SIGNED, signature="é")))


def test_the_key_is_read_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert read_key({"LOSSGUARD_ORDER_KEY": KEY}) == KEY
    assert read_key({"LOSSGUARD_ORDER_KEY_FILE": str(file), "LOSSGUARD_ORDER_KEY": ""}) == KEY
    assert read_key({}) is None


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"LOSSGUARD_ORDER_KEY": "secret"}, "LOSSGUARD_ORDER_KEY: an order key has at least 16 visible ASCII"),
        ({"LOSSGUARD_ORDER_KEY": "secret words that are long"}, "no blanks"),
        ({"LOSSGUARD_ORDER_KEY_FILE": "/nowhere"}, "LOSSGUARD_ORDER_KEY_FILE='/nowhere' cannot be read"),
        ({"LOSSGUARD_ORDER_KEY_FILE": "/x", "LOSSGUARD_ORDER_KEY": "secret"}, "not both"),
    ],
)
def test_an_unusable_key_gets_one_sentence_that_does_not_show_it(environment: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_key(environment)
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)
