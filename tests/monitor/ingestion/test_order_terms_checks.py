"""What a trainer may say about an order."""

import pytest

from db.models import Order, Run
from monitor.ingestion.order_terms import bad_rewind, bad_skip

ORDER = Order(id=7, rewind_to=200, skip_from=200, skip_to=400)
RUN = Run(id="r", restorable_steps=[0, 100, 150])


@pytest.mark.parametrize(("step", "fits"), [(200, True), (150, True), (0, True), (149, False), (201, False)])
def test_a_rollback_ends_at_the_ordered_step_or_at_an_older_checkpoint(step: int, fits: bool) -> None:
    assert (bad_rewind(RUN, ORDER, step) is None) == fits


def test_an_order_that_names_no_step_rewinds_to_none() -> None:
    assert "not at or before it" in (bad_rewind(RUN, Order(id=7), 0) or "")


@pytest.mark.parametrize(
    ("skip_from", "skip_to", "fits"),
    [
        (200, 400, True),
        (None, None, True),
        (100, 500, True),
        (100, 501, False),
        (0, 2**62 - 1, False),
        (201, 400, False),
        (200, 399, False),
        (200, None, False),
        (None, 400, False),
    ],
)
def test_the_skipped_batches_are_the_ordered_ones_or_a_few_more(
    skip_from: int | None, skip_to: int | None, fits: bool
) -> None:
    assert (bad_skip(ORDER, skip_from, skip_to) is None) == fits


def test_an_order_without_a_skip_skips_nothing() -> None:
    assert "skips no batches" in (bad_skip(Order(id=7, rewind_to=200), 200, 201) or "")
