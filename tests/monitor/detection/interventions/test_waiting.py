"""Whether to wait for a loss that may fall back."""

import numpy as np
import pytest

from lossguard.vocabulary.states import IncidentKind
from monitor.detection import DetectionEngine, Policy, Rows
from monitor.detection.interventions.waiting import costs, reason_to_act, rows_to_wait, too_early
from monitor.detection.rows import Floats
from tests.monitor.detection.interventions.situations import situation
from tests.monitor.detection.runs import EffectLog


def test_waiting_costs_more_the_less_likely_the_loss_recovers() -> None:
    falling = costs(Policy(), situation(falls=18, rises=0), 130.0)
    rising = costs(Policy(), situation(falls=0, rises=18), 130.0)
    assert falling.wait < falling.roll_back < rising.wait
    assert costs(Policy(), situation(non_finite=True), 130.0).recovery_probability == 0


def test_the_reason_names_the_rule_that_ended_the_waiting() -> None:
    def reason(**changes: object) -> str:
        now = situation(**changes)
        return reason_to_act(Policy(), now, costs(Policy(), now, 130.0)) or ""

    assert "not finite" in reason(non_finite=True)
    assert "did not halve" in reason()
    assert "rose on 5 consecutive rows" in reason(rising_rows=5)
    assert "expected to cost more" in reason(excess=0.1, falls=0, rises=40)
    assert reason(excess=0.1) == ""


def test_nothing_is_done_about_what_is_enough_for_an_incident_alone() -> None:
    now = situation(sure=False)
    assert "not for an action" in (too_early(now) or "")
    assert reason_to_act(Policy(), now, costs(Policy(), now, 130.0)) is None
    assert reason_to_act(Policy(), situation(sure=False, non_finite=True), costs(Policy(), now, 130.0)) is not None


@pytest.mark.parametrize(("longest", "rows"), [(0, 12), (3, 12), (6, 18), (15, 45), (200, 56)])
def test_a_spike_gets_three_times_the_rows_in_which_spikes_of_the_run_have_recovered(longest: int, rows: int) -> None:
    assert rows_to_wait(situation(rows_to_recover=longest)) == rows
    assert too_early(situation(rows_to_recover=longest, falls=0, rises=rows - 1)) is not None
    assert too_early(situation(rows_to_recover=longest, falls=0, rises=rows)) is None


def test_a_loss_that_rises_on_and_on_gets_rows_only_where_others_came_back() -> None:
    rows = [rows_to_wait(situation(kind=IncidentKind.DIVERGENCE, rows_to_recover=longest)) for longest in (0, 10)]
    assert rows == [0, 30]


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


def test_what_small_spikes_do_says_nothing_of_a_much_larger_one() -> None:
    assert [onset for onset, _ in acted_on(with_spikes((300, 10, 0.3), (500, 20, 1.5)))] == [500]


def test_a_rise_that_stays_is_acted_on_after_the_rows_that_others_took() -> None:
    (onset, decided), *_ = acted_on(with_spikes((300, 10, 0.3), (500, 1500, 0.3)))
    assert onset == 500
    assert 513 < decided <= 535


@pytest.mark.parametrize("seed", range(5))
def test_the_way_back_from_an_easy_stretch_is_no_spike(seed: int) -> None:
    assert acted_on(with_spikes((400, 24, -0.12), (800, 12, -0.1), (1200, 18, -0.14), seed=seed)) == []
