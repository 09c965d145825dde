"""Whether to wait for a loss that may fall back."""

from monitor.detection import Policy
from monitor.detection.interventions.waiting import costs, reason_to_act
from tests.monitor.detection.interventions.situations import situation


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
