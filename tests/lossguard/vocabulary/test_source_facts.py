from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.vocabulary.source_facts import EVERY_STEP, Clock, SourceFacts, facts_of

FACTS = st.builds(
    SourceFacts,
    stride=st.integers(1, 1000),
    averaged=st.booleans(),
    smoothing=st.floats(0.0, 0.9999),
    nan_filtered=st.booleans(),
    clock=st.sampled_from(Clock),
)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5)


@given(FACTS)
def test_facts_survive_the_event(facts: SourceFacts) -> None:
    assert SourceFacts.from_details(facts.to_details()) == facts


@given(st.dictionaries(st.sampled_from([*SourceFacts.__dataclass_fields__, "other"]), JSON))
def test_details_of_another_release_never_raise(details: dict[str, object]) -> None:
    SourceFacts.from_details(details)


def test_a_loop_that_reports_every_step_has_nothing_to_say() -> None:
    assert SourceFacts().describe() == []
    assert SourceFacts().uncertain_steps == 0


def test_each_way_is_one_sentence() -> None:
    assert SourceFacts(stride=10).describe() == [
        "The loss is logged every 10th step: an onset is known to within 10 steps."
    ]
    assert SourceFacts(stride=250).describe() == [
        "The loss is logged every 250th step: an onset is known to within 250 steps, and most spikes end between two "
        "rows and are not seen."
    ]
    assert "mean of 10 steps: an onset is known to within 20" in SourceFacts(stride=10, averaged=True).describe()[0]
    assert "the detection undoes it" in SourceFacts(smoothing=0.9).describe()[0]
    assert "exactly 0" in SourceFacts(nan_filtered=True).describe()[0]
    assert "no rollback is ordered" in SourceFacts(clock=Clock.SAMPLES).describe()[0]


def test_an_onset_is_known_to_within_the_steps_that_a_row_may_hide() -> None:
    assert SourceFacts(smoothing=0.9).uncertain_steps == SourceFacts(averaged=True).uncertain_steps == 0
    assert SourceFacts(stride=10).uncertain_steps == 9
    assert SourceFacts(stride=10, averaged=True).uncertain_steps == 19


MEAN = SourceFacts(averaged=True, nan_filtered=True)


@pytest.mark.parametrize(
    ("config", "facts"),
    [
        ({"logging_steps": 10, "logging_strategy": "steps"}, replace(MEAN, stride=10)),
        ({"logging_nan_inf_filter": "True", "logging_steps": "5"}, replace(MEAN, stride=5)),
        ({"logging_nan_inf_filter": False, "logging_steps": 1.0}, EVERY_STEP),
        ({"logging_steps": 0.05}, MEAN),
        ({"logging_steps": float("nan")}, MEAN),
        ({"logging_steps": "many"}, MEAN),
        ({"logging_steps": 10, "logging_strategy": "epoch"}, MEAN),
    ],
)
def test_the_arguments_of_the_trainer_say_how_its_loss_is_logged(config: dict[str, Any], facts: SourceFacts) -> None:
    arguments = {"logging_nan_inf_filter": True} | config
    assert facts_of(arguments) == facts_of({"model": {"layers": 2}, "args": arguments}) == facts


def test_any_other_configuration_has_no_facts() -> None:
    assert facts_of({"lr": 0.1}) == EVERY_STEP
