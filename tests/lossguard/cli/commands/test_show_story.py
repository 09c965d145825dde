from typing import Any

import pytest

from lossguard.cli.commands.show import story

RUN = {"newest_step": {"step": 860}, "total_steps": 3261}
SPIKE, STALL = {"kind": "loss_spike"}, {"kind": "stall"}


@pytest.mark.parametrize(
    ("run", "goodput", "incidents", "sentence"),
    [
        (RUN, 0.931, [SPIKE] * 6, "861 steps, 26.4%, 28 s lost to 6 incidents, goodput 93.1%."),
        (RUN | {"total_steps": None}, None, [STALL], "861 steps, no incident."),
        ({"newest_step": {"step": 0}, "total_steps": 4}, None, [SPIKE], "1 step, 25.0%, 28 s lost to 1 incident."),
        ({"newest_step": None, "total_steps": 5}, None, [], "No step has been reported yet."),
    ],
)
def test_a_sentence_says_what_became_of_a_run(
    run: dict[str, Any], goodput: float | None, incidents: list[dict[str, Any]], sentence: str
) -> None:
    assert story(run, {"goodput": goodput, "seconds": {"spike": 28.2}}, incidents) == sentence
