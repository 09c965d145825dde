from trainer.config import load_recipe, recorded_recipe


def test_a_renamed_field_is_read_under_its_old_name() -> None:
    """From an override, and from the recorded configuration of a run of an earlier release."""
    assert load_recipe("tiny", ["objective.own_inputs=0.5"]).objective.parallel_scheduled_sampling == 0.5
    recorded = {"name": "old", "steps": 7, "objective": {"label_smoothing": 0.0, "own_inputs": 0.25}, "faults": []}
    assert recorded_recipe(recorded).objective.parallel_scheduled_sampling == 0.25
