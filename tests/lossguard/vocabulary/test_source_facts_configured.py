from typing import Any

import pytest

from lossguard.vocabulary.source_facts import EVERY_STEP, SourceFacts, facts_of


@pytest.mark.parametrize(
    ("config", "facts"),
    [
        ({"lr": 0.1}, EVERY_STEP),
        (
            {"logging_nan_inf_filter": True, "logging_steps": 10, "logging_strategy": "steps"},
            SourceFacts(stride=10, averaged=True, nan_filtered=True),
        ),
        ({"logging_nan_inf_filter": False, "logging_steps": 1.0}, EVERY_STEP),
        (
            {"model": {"layers": 2}, "args": {"logging_nan_inf_filter": True, "logging_steps": 10}},
            SourceFacts(stride=10, averaged=True, nan_filtered=True),
        ),
        ({"logging_nan_inf_filter": True, "logging_steps": 0.05}, SourceFacts(averaged=True, nan_filtered=True)),
        (
            {"logging_nan_inf_filter": True, "logging_steps": float("nan")},
            SourceFacts(averaged=True, nan_filtered=True),
        ),
        ({"logging_nan_inf_filter": True, "logging_steps": "many"}, SourceFacts(averaged=True, nan_filtered=True)),
        (
            {"logging_nan_inf_filter": "True", "logging_steps": "5"},
            SourceFacts(stride=5, averaged=True, nan_filtered=True),
        ),
        (
            {"logging_nan_inf_filter": True, "logging_steps": 10, "logging_strategy": "epoch"},
            SourceFacts(averaged=True, nan_filtered=True),
        ),
    ],
)
def test_the_arguments_of_the_trainer_say_how_its_loss_is_logged(config: dict[str, Any], facts: SourceFacts) -> None:
    assert facts_of(config) == facts
