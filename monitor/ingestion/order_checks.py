"""Whether what a trainer says about an order can be true. Pure: a sentence that says why not, or None."""

from db.models import Order, Run

MAX_WIDER = 2
"""A trainer may skip more batches than ordered, such as whole shards, but at most so many times as many."""


def bad_rewind(run: Run, order: Order, step: int) -> str | None:
    """A rollback goes back to the ordered step, or to an older checkpoint if that one was damaged."""
    if order.rewind_to is None or step > order.rewind_to:
        return f"order {order.id} goes back to step {order.rewind_to}, and step {step} is not at or before it"
    if step != order.rewind_to and step not in run.restorable_steps:
        return f"step {step} is neither the step {order.rewind_to} of order {order.id} nor a restorable one"
    return None


def bad_skip(order: Order, skip_from: int | None, skip_to: int | None) -> str | None:
    """The skipped batches are the ordered ones, or a few more around them; none if the trainer says nothing of them."""
    if skip_from is None and skip_to is None:
        return None
    given = f"the batches [{skip_from}, {skip_to})"
    if order.skip_from is None or order.skip_to is None:
        return f"order {order.id} skips no batches, and {given} were skipped"
    if skip_from is None or skip_to is None or skip_from > order.skip_from or skip_to < order.skip_to:
        return f"{given} lack some of those that order {order.id} skips: [{order.skip_from}, {order.skip_to})"
    if skip_to - skip_from > MAX_WIDER * (order.skip_to - order.skip_from):
        return f"{given} are more than {MAX_WIDER} times as many as order {order.id} skips"
    return None
