"""Configurations side by side: what differs is marked with a sign, and other tokenizers are warned of."""

from typing import Any

import pytest

from dashboard.data.comparison import configurations
from dashboard.data.comparison.configurations import (
    DIFFERENT,
    Setting,
    Vocabulary,
    evaluation_differences,
    side_by_side,
    table,
    tokenizer_warning,
)
from db.models import Run
from monitor.detection import DetectionSettings
from monitor.detection.interventions import run_policy


def run(config: dict[str, Any], **values: Any) -> Run:
    usual: dict[str, Any] = {"versions": {}, "devices": [], "policy": None, "total_steps": None}
    return Run(config=config, **(usual | values))


def differing(*runs: Run) -> dict[str, tuple[str, ...]]:
    return {each.name: each.values for each in side_by_side(runs) if each.differs}


def test_only_what_differs_differs() -> None:
    left = run({"lr": 1e-3, "model": {"width": 8}, "tags": ["a"]})
    right = run({"lr": 2e-3, "model": {"width": 8}, "tags": ["a"]})
    assert differing(left, right) == {"lr": ("0.001", "0.002")}


def test_a_whole_number_is_the_same_however_it_is_written_and_a_switch_is_not_a_number() -> None:
    assert not differing(run({"clip": 1}), run({"clip": 1.0}))
    assert differing(run({"clip": 1}), run({"clip": True})) == {"clip": ("1", "true")}


def test_a_policy_that_is_left_as_usual_differs_in_nothing_from_the_same_one_written_out() -> None:
    usual = run_policy.policy_of(None).to_dict()
    chosen = usual | {"patience": 30, "detection": {"false_alarms_per_10k": 2.0}}
    assert not differing(run({}), run({}, policy=usual))
    assert differing(run({}), run({}, policy=chosen)) == {
        "Policy: patience": (str(usual["patience"]), "30"),
        "Policy: detection.false_alarms_per_10k": (f"{DetectionSettings().false_alarms_per_10k:g}", "2"),
    }


def test_rows_and_cells_that_differ_carry_a_sign() -> None:
    rows = table([Setting("lr", ("1", "2", "1")), Setting("width", ("8", "8", "8"))], ["a", "b", "c"], 0)
    assert list(rows.columns) == [DIFFERENT, "Setting", "a", "b", "c"]
    assert rows.iloc[0].tolist() == [DIFFERENT, "lr", "1", f"{DIFFERENT} 2", "1"]
    assert rows.iloc[1].tolist() == ["", "width", "8", "8", "8"]


def test_a_secret_in_a_stored_configuration_is_not_shown() -> None:
    stored = run({"hub": {"token": "Zq81xYvL"}}, command="python train.py --api-key Zq81xYvL")
    shown = [value for each in side_by_side([stored, run({})]) for value in each.values]
    assert "python train.py --api-key ***" in shown
    assert not any("Zq81xYvL" in value for value in shown)


def test_runs_are_evaluated_on_the_same_text_if_its_digests_are_equal_else_settings_decide() -> None:
    def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
        return evaluation_differences(side_by_side([run(left), run(right)]))

    one, other = {"seed": 1, "evaluation_set": "aa"}, {"seed": 2, "evaluation_set": "aa"}
    assert differences(one, other) == []
    assert differences(one, other | {"evaluation_set": "bb"}) == ["evaluation_set"]
    assert differences(one, {"seed": 2}) == ["seed", "evaluation_set"], "a trainer that records no digest"
    assert differences({"seed": 1}, {"seed": 2}) == ["seed"]


BYTES = Vocabulary("bytes", 256)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"tokenizer": "bytes", "model": {"vocab_size": 256}}, BYTES),
        ({"tokenizer": "bytes", "data": {"tokenizer": ""}, "vocab_size": 256}, BYTES),
        ({"data": {"tokenizer": "gpt2"}, "n_vocab": 50257}, Vocabulary("gpt2", 50257)),
        ({"tokenizer": None, "data": {"tokenizer": 3}}, Vocabulary(None, None)),
        ({"lr": 1e-3}, Vocabulary(None, None)),
    ],
)
def test_a_configuration_names_its_tokenizer_at_the_top_or_in_a_section(
    config: dict[str, Any], found: Vocabulary
) -> None:
    assert configurations.vocabulary_of(config) == found


def test_an_unknown_tokenizer_is_warned_of_too() -> None:
    text = tokenizer_warning({"a": BYTES, "b": Vocabulary(None, 256)})
    assert text is not None
    assert "not every run names its tokenizer" in text
    assert "tokenizer not named, 256 tokens" in text
