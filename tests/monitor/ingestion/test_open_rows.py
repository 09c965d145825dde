"""Scalars become rows: complete when what is due has come, in the order of the steps, none twice, none lost."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from monitor.ingestion.open_rows import HOLD_SECONDS, MAX_OPEN_ROWS, SIGNAL_HOLD_SECONDS, OpenRows, Scalar, ScalarPlace

NOW = 1000.0


def scalar(name: str, step: int, value: float = 1.0, *, time: float | None = None) -> Scalar:
    return Scalar(name, value, float(step) if time is None else time, step)


def feed(rows: OpenRows, *names: str, step: int, now: float = NOW) -> list[int]:
    """The steps that are complete after these metrics of a step have come one by one."""
    complete = []
    for name in names:
        rows.add(scalar(name, step), now)
        complete += [row.step for row in rows.take_complete(now)]
    return complete


def trained(*names: str, stride: int = 1) -> OpenRows:
    """After enough rows that it is known what is due."""
    rows = OpenRows()
    for step in range(0, 3 * stride, stride):
        feed(rows, *names, step=step)
        rows.take_complete(NOW + HOLD_SECONDS)
    return rows


def test_a_row_is_complete_with_the_last_of_the_signals_that_are_due() -> None:
    rows = trained("loss", "grad_norm")
    assert feed(rows, "loss", step=3) == []
    assert feed(rows, "grad_norm", step=3) == [3]


def test_the_first_rows_wait_for_what_may_still_come() -> None:
    rows = OpenRows()
    assert feed(rows, "loss", step=0) == []
    assert rows.due_at() == NOW + HOLD_SECONDS
    assert [row.step for row in rows.take_complete(NOW + HOLD_SECONDS)] == [0]


def test_a_learning_rate_that_comes_long_before_the_loss_of_its_step_waits_for_it() -> None:
    rows = trained("lr", "loss")
    assert feed(rows, "lr", step=3) == []
    assert rows.take_complete(NOW + SIGNAL_HOLD_SECONDS / 2) == []
    assert feed(rows, "loss", step=3, now=NOW + SIGNAL_HOLD_SECONDS / 2) == [3]


def test_a_metric_with_another_cadence_holds_up_nothing() -> None:
    rows = OpenRows()
    for step in range(31):
        feed(rows, *(["loss"] if step % 10 == 0 else []), "lr", step=step)
        rows.take_complete(NOW + HOLD_SECONDS)
    assert [feed(rows, "lr", step=step) for step in range(31, 34)] == [[31], [32], [33]]


def test_rows_that_come_out_of_order_are_put_in_order() -> None:
    rows = trained("loss")
    assert feed(rows, "loss", step=5) == []
    assert feed(rows, "loss", step=4) == []
    assert feed(rows, "loss", step=3) == [3, 4, 5]


def test_a_row_that_never_comes_is_waited_for_a_short_time() -> None:
    rows = trained("loss")
    assert feed(rows, "loss", step=4) == []
    assert [row.step for row in rows.take_complete(NOW + HOLD_SECONDS)] == [4]


def test_a_row_without_its_loss_is_complete_soon_after_the_next_one_has_come() -> None:
    rows = trained("loss", "lr")
    feed(rows, "lr", step=3)
    feed(rows, "lr", "loss", step=4)
    assert [row.step for row in rows.take_complete(NOW + HOLD_SECONDS)] == [3, 4]


def test_a_nan_does_not_wait_for_the_other_signals() -> None:
    rows = trained("loss", "grad_norm")
    rows.add(scalar("loss", 3, math.nan), NOW)
    (row,) = rows.take_complete(NOW + HOLD_SECONDS)
    assert math.isnan(row.values["loss"])


def test_not_more_than_a_few_rows_wait() -> None:
    rows = trained("loss", "lr")
    complete = [each for step in range(3, 203) for each in feed(rows, "lr", step=step)]
    assert complete == list(range(3, 203 - MAX_OPEN_ROWS))


def test_a_loss_that_goes_back_begins_a_new_segment_and_a_test_result_does_not() -> None:
    rows = trained("loss")
    assert rows.place(scalar("loss", 1, time=99.0)) is ScalarPlace.BACK
    assert rows.place(scalar("test_accuracy", 0, time=99.0)) is ScalarPlace.LATE
    assert rows.place(scalar("loss", 1, time=1.0)) is ScalarPlace.LATE  # the same request again
    assert rows.place(scalar("loss", 3)) is ScalarPlace.OPEN


NAMES = st.sampled_from(["loss", "grad_norm", "lr", "accuracy"])
VALUES = st.sampled_from([1.0, math.nan, math.inf, -math.inf])
EVENTS = st.lists(st.tuples(NAMES, st.integers(0, 40), VALUES, st.sampled_from([0.0, 0.5, 3.0, 700.0])), max_size=60)


@given(EVENTS)
def test_whatever_comes_is_in_one_row_and_a_restart_at_any_time_changes_nothing(
    events: list[tuple[str, int, float, float]],
) -> None:
    rows, restarted = OpenRows(), OpenRows()
    given_values: dict[tuple[int, str], float] = {}
    complete = []
    now = NOW
    for name, step, value, wait in events:
        now += wait
        one = Scalar(name, value, now, step)
        if rows.place(one) is not ScalarPlace.OPEN:
            continue
        given_values[step, name] = value
        rows.add(one, now)
        restarted.add(one, now)
        taken = rows.take_complete(now)
        restarted = OpenRows.from_json(json.loads(json.dumps(restarted.to_json(), allow_nan=False)))
        assert repr(restarted.take_complete(now)) == repr(taken)
        complete += taken
    complete += rows.take_all()
    steps = [row.step for row in complete]
    assert steps == sorted(set(steps))
    found = {(row.step, name): value for row in complete for name, value in row.values.items()}
    assert repr(sorted(found.items())) == repr(sorted(given_values.items()))
