"""The decision of a replay: values in, a cause out."""

import itertools
import math

import pytest

from lossguard.states import Cause
from trainer.replay.outcomes import CAUSES, Outcomes, cause_of, departure, off, reference
from trainer.replay.record import Row


def rows(losses: list[float]) -> list[Row]:
    return [Row(batch, loss, 1.0, 6.0) for batch, loss in enumerate(losses)]


def wavering(num: int, level: float = 2.0, slope: float = 0.0) -> list[float]:
    return [level + slope * step + 0.05 * (-1) ** step for step in range(num)]


@pytest.mark.parametrize(
    ("same_same", "same_other", "earlier_same", "earlier_other", "cause"),
    [
        (False, False, False, False, Cause.HARDWARE),
        (True, False, True, False, Cause.DATA),
        (True, True, False, False, Cause.STATE),
        (True, False, False, False, Cause.DATA_X_STATE),
        (True, True, True, False, Cause.UNDETERMINED),  # state and batches both
        (True, True, True, True, Cause.UNDETERMINED),  # there is no clean reference
        (False, False, True, False, Cause.UNDETERMINED),  # what the same state does not do, an earlier one does
        (True, False, None, None, Cause.UNDETERMINED),  # batches, or batches x state: nothing to tell them by
        (True, True, None, None, Cause.UNDETERMINED),  # the state, or the recipe
        (False, False, None, None, Cause.HARDWARE),
    ],
)
def test_the_four_outcomes_point_to_a_cause(
    same_same: bool, same_other: bool, earlier_same: bool | None, earlier_other: bool | None, cause: Cause
) -> None:
    assert cause_of(Outcomes(same_same, same_other, earlier_same, earlier_other)) is cause


def test_every_cause_is_pointed_to_by_some_outcomes_and_no_more_are_decided() -> None:
    every = [Outcomes(*four) for four in itertools.product([True, False], repeat=4)]
    assert {cause_of(outcomes) for outcomes in every} == set(Cause)
    assert sum(cause_of(outcomes) is not Cause.UNDETERMINED for outcomes in every) == 4
    assert len(CAUSES) == 5


def test_the_tolerance_is_the_noise_of_the_steps_and_not_their_trend() -> None:
    flat = reference(dict(enumerate(rows(wavering(60)))), first=0, onset=60, signal="loss", repeat=0.0)
    falling = reference(dict(enumerate(rows(wavering(60, 5.0, -0.01)))), first=0, onset=60, signal="loss", repeat=0.0)
    assert flat.tolerance == pytest.approx(6 * 1.4826 * 0.1 / math.sqrt(2))
    assert falling.tolerance == pytest.approx(flat.tolerance, rel=0.11)
    assert falling.expected(30) == pytest.approx(5.0 - 0.01 * 30, abs=0.06)
    assert falling.expected(500) == falling.expected(49)  # past the onset: the last clean steps


def test_repetitions_that_are_less_exact_than_the_steps_are_quiet_widen_the_tolerance() -> None:
    record = dict(enumerate(rows(wavering(60))))
    assert reference(record, first=0, onset=60, signal="loss", repeat=1.0).tolerance == 2.0


def test_a_loss_is_trouble_above_what_was_expected_and_log_z_on_either_side() -> None:
    record = dict(enumerate(rows(wavering(60))))
    by_loss = reference(record, first=0, onset=60, signal="loss", repeat=0.0)
    assert by_loss.excess(60, Row(0, 5.0, 1.0, 6.0)) == pytest.approx(3.0, abs=0.06)
    assert by_loss.excess(60, Row(0, 0.5, 1.0, 6.0)) < 0
    by_log_z = reference(record, first=0, onset=60, signal="log_z", repeat=0.0)
    assert by_log_z.excess(60, Row(0, 2.0, 1.0, 2.0)) == pytest.approx(4.0)


@pytest.mark.parametrize("row", [Row(0, math.nan, 1.0, 6.0), Row(0, 2.0, math.inf, 6.0), Row(0, 2.0, 1.0, math.nan)])
def test_a_number_that_is_not_finite_is_trouble_whatever_the_signal(row: Row) -> None:
    record = dict(enumerate(rows(wavering(60))))
    assert reference(record, first=0, onset=60, signal="loss", repeat=0.0).worst(60, [record[0], row]) == (1, math.inf)


def test_what_shows_a_small_part_of_the_recorded_trouble_does_not_repeat_it() -> None:
    record = dict(enumerate(rows(wavering(60))))
    bare = reference(record, first=0, onset=60, signal="loss", repeat=0.0)
    assert bare.capped([10.0, math.inf]).tolerance == 2.5
    assert bare.capped([0.1]).tolerance == bare.tolerance
    assert bare.capped([math.inf]).tolerance == bare.tolerance


def test_a_replay_leaves_the_record_where_it_is_off_by_more_than_clean_steps() -> None:
    recorded = rows([2.0, 2.1, 2.2, math.nan])
    assert departure(recorded, recorded, 0.0) is None
    assert departure(recorded, rows([2.0, 2.1 + 1e-9, 2.2, 2.0]), 0.0) == 1
    assert departure(recorded, rows([2.0, 2.1 + 1e-9, 2.2, 2.0]), 1e-8) == 3
    assert off(recorded[3], Row(0, 2.0, math.nan, 6.0)) == 0.0
    assert off(recorded[0], recorded[3]) == math.inf
