"""Whether to wait for a loss that may fall back."""

import numpy as np
import pytest

from lossguard.vocabulary.states import IncidentKind
from monitor.detection import DetectionEngine, Policy, Rows
from monitor.detection.interventions.waiting import costs, reason_to_act, too_early
from monitor.detection.rows import Floats
from tests.monitor.detection.interventions.situations import situation
from tests.monitor.detection.runs import EffectLog


def test_waiting_costs_more_the_likelier_the_loss_lasts() -> None:
    likely, unlikely = (costs(Policy(), situation(lasting_probability=p), 130.0) for p in (0.1, 0.9))
    assert likely.wait < likely.roll_back < unlikely.wait
    assert costs(Policy(), situation(non_finite=True), 130.0).recovery_probability == 0
    assert costs(Policy(), situation(), 130.0).recovery_probability == 0.5


def test_the_reason_names_the_rule_that_ended_the_waiting() -> None:
    def reason(**changes: object) -> str:
        return reason_to_act(Policy(), situation(**changes)) or ""

    assert "not finite" in reason(non_finite=True)
    assert "did not halve" in reason()
    assert "rose on 5 consecutive rows" in reason(rising_rows=5)
    assert "After 18 rows the spike recovers by itself in about 2 of 10 such cases" in reason(lasting_probability=0.8)
    assert reason(excess=0.1) == ""
    assert reason(excess=0.0, lasting_probability=0.8) == ""


def test_nothing_is_done_about_what_is_enough_for_an_incident_alone() -> None:
    now = situation(sure=False)
    assert "not for an action" in (too_early(now) or [""])[0]
    assert reason_to_act(Policy(), now) is None
    assert reason_to_act(Policy(), situation(sure=False, non_finite=True)) is not None


@pytest.mark.parametrize(
    ("lasting", "others", "rows", "waits"),
    [
        (0.3, True, 80, True),
        (0.3, True, 81, False),
        (0.7, True, 1, False),
        (0.3, False, 11, True),
        (0.3, False, 12, False),
    ],
)
def test_a_spike_that_may_recover_is_left_alone(lasting: float, others: bool, rows: int, waits: bool) -> None:
    now = situation(lasting_probability=lasting, others_recovered=others, falls=0, rises=rows)
    assert (too_early(now) is not None) == waits
    assert (reason_to_act(Policy(), now) is None) == waits


def test_a_loss_that_rises_on_and_on_is_waited_for_only_where_others_came_back() -> None:
    now = [situation(kind=IncidentKind.DIVERGENCE, lasting_probability=0.3, others_recovered=each) for each in (0, 1)]
    assert [too_early(each) is None for each in now] == [True, False]


def with_spikes(*spikes: tuple[int, int, float], seed: int = 0) -> Floats:
    """A loss that lies (step, rows, nats) higher than usual."""
    loss = 2.2 + 0.02 * np.random.default_rng(seed).standard_normal(2000)
    for step, rows, nats in spikes:
        loss[step : step + rows] += nats
    return loss


def acted_on(loss: Floats) -> list[tuple[int, int]]:
    """(onset, decision) of the rollbacks that the policy would order."""
    engine, log = DetectionEngine(policy=Policy(mode="approve")), EffectLog()  # type: ignore[arg-type]
    log.add(engine.feed(Rows.of(np.arange(len(loss)), loss=loss), restorable=range(0, len(loss), 50)))
    onsets = {each.number: each.onset_step for each in log.incidents}
    return [(onsets[each.incident], each.decided_step) for each in log.interventions if each.incident is not None]


def test_a_run_whose_spikes_recover_leaves_the_next_one_alone_for_longer() -> None:
    assert acted_on(with_spikes((500, 20, 0.3))) == [(500, 513)]
    assert acted_on(with_spikes((300, 10, 0.3), (500, 20, 0.3))) == []
    assert acted_on(with_spikes((300, 10, 0.15), (500, 20, 0.6))) == []


def test_small_spikes_do_not_say_how_long_a_much_larger_one_takes() -> None:
    (onset, decided), *_ = acted_on(with_spikes((300, 10, 0.15), (500, 200, 0.6)))
    assert onset == 500
    assert decided <= 525


def test_a_rise_that_stays_is_acted_on_after_the_rows_that_others_took() -> None:
    (onset, decided), *_ = acted_on(with_spikes((300, 10, 0.3), (500, 1500, 0.3)))
    assert onset == 500
    assert 513 < decided <= 535


@pytest.mark.parametrize("seed", range(5))
def test_the_way_back_from_an_easy_stretch_is_no_spike(seed: int) -> None:
    assert acted_on(with_spikes((400, 24, -0.12), (800, 12, -0.1), (1200, 18, -0.14), seed=seed)) == []


@pytest.mark.parametrize("seed", range(4))
def test_the_way_back_from_two_easy_stretches_is_no_rise(seed: int) -> None:
    assert acted_on(with_spikes((1000, 24, -0.12), (1030, 24, -0.12), seed=seed)) == []
