import math
from typing import Any

import pytest

from trainer.drill.fault_results import LoggedStep, fault_results
from trainer.faults import Fault

CLEAN = dict.fromkeys(range(1000), 2.0)


def line(first: int, last: int, loss: float = 2.0, shift: int = 0) -> list[LoggedStep]:
    return [LoggedStep(step, step + shift, loss, held_out=loss) for step in range(first, last)]


def test_a_fault_that_shows_nowhere_did_not_hurt() -> None:
    (verdict,) = fault_results([Fault("mantissa_flip", 100, 1)], line(0, 200), CLEAN)
    assert (verdict.hurt, verdict.got_past, verdict.action, verdict.detected_after) == (False, True, "none", None)


@pytest.mark.parametrize(("loss", "hurt"), [(2.1, False), (2.5, True), (math.nan, True)])
def test_a_fault_hurts_when_the_loss_of_a_few_steps_rises_by_a_tenth_or_is_not_finite(loss: float, hurt: bool) -> None:
    history = line(0, 110) + line(110, 116, loss) + line(116, 200)
    assert fault_results([Fault("bit_flip", 100, 1)], history, CLEAN)[0].hurt is hurt


def test_a_gradient_that_is_not_finite_hurts_though_the_order_came_before_the_loss_showed_it() -> None:
    history = [*line(0, 100), LoggedStep(100, 100, 2.0, finite=False), *line(20, 300, shift=200)]
    assert fault_results([Fault("nan_gradient", 100, 1)], history, CLEAN)[0].hurt


def test_what_a_rollback_cost_is_counted_from_the_steps_themselves() -> None:
    """Left after step 119 for step 20, with 200 batches skipped."""
    history = line(0, 100) + line(100, 120, math.nan) + line(20, 300, shift=200)
    incident: dict[str, Any] = {"number": 1, "detected_step": 102}
    done: dict[str, Any] = {"incident": 1, "kind": "rollback", "state": "verified"}
    (verdict,) = fault_results([Fault("bit_flip", 100, 1)], history, CLEAN, [incident], [done])
    assert (verdict.hurt, verdict.got_past, verdict.recurred) == (True, True, False)
    assert (verdict.detected_after, verdict.action) == (2, "rolled back")
    assert (verdict.rollbacks, verdict.steps_lost, verdict.batches_skipped) == (1, 100, 200)


def test_a_second_attempt_is_a_recurrence_and_a_loss_that_stays_up_is_not_past() -> None:
    history = line(0, 100) + line(100, 120, 9.0) + line(20, 120, 9.0, 200) + line(0, 300, 2.5, 400)
    (verdict,) = fault_results([Fault("bit_flip", 100, 1)], history, CLEAN)
    assert (verdict.rollbacks, verdict.recurred, verdict.got_past) == (2, True, False)
    assert (verdict.held_out, verdict.clean_held_out) == (2.5, 2.0)


def test_a_fault_is_got_past_by_the_last_held_out_loss_whatever_the_training_batches_were_like() -> None:
    def history(held_out: float) -> list[LoggedStep]:
        return [
            *line(0, 100),
            *line(100, 110, 9.0),
            LoggedStep(199, 199, 2.6, held_out=held_out),
            LoggedStep(200, 200, 2.6),
        ]

    assert fault_results([Fault("bit_flip", 100, 1)], history(2.1), CLEAN)[0].got_past
    assert not fault_results([Fault("bit_flip", 100, 1)], history(2.11), CLEAN)[0].got_past


def test_each_fault_is_judged_by_what_happened_up_to_the_next() -> None:
    faults = [Fault("bit_flip", 200, 1), Fault("bit_flip", 100, 1)]
    history = line(0, 200) + line(200, 210, 9.0) + line(150, 400, shift=100)
    incident: dict[str, Any] = {"number": 1, "detected_step": 203}
    held: dict[str, Any] = {"incident": 1, "kind": "hold", "state": "applied"}
    first, second = fault_results(faults, history, CLEAN, [incident], [held])
    assert (first.step, first.hurt, first.detected_after, first.rollbacks) == (100, False, None, 0)
    assert (second.step, second.hurt, second.detected_after, second.rollbacks) == (200, True, 3, 1)
    assert second.action == "held for an operator"
