"""The published rules alarm where their descriptions say."""

import numpy as np
import pytest

from monitor.backtesting.published_rules import RULES, alarm_steps
from monitor.detection import Rows

QUIET = 2.0 + 0.01 * np.sin(np.arange(1500))


@pytest.mark.parametrize("name", list(RULES))
def test_a_quiet_curve_raises_no_alarm_once_the_window_is_full(name: str) -> None:
    steps = alarm_steps(RULES[name], Rows.of(np.arange(1500), loss=QUIET))
    assert [step for step in steps if step >= 1000] == []


@pytest.mark.parametrize("name", [name for name in RULES if name != "axolotl, above 5 three times"])
def test_a_loss_that_jumps_to_thirty_times_its_level_is_an_alarm(name: str) -> None:
    loss = QUIET.copy()
    loss[1200:1206] = 60.0
    steps = alarm_steps(RULES[name], Rows.of(np.arange(1500), loss=loss))
    assert any(1200 <= step < 1206 for step in steps)


def test_a_rule_that_needs_consecutive_rows_alarms_at_the_last_of_them() -> None:
    loss = QUIET.copy()
    loss[1200:1204] = 6.0
    steps = alarm_steps(RULES["axolotl, above 5 three times"], Rows.of(np.arange(1500), loss=loss))
    assert steps == [1202, 1203]
