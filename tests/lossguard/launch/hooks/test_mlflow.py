from collections.abc import Callable
from typing import Any

from lossguard.launch.hooks.journal import Journal
from lossguard.launch.hooks.mlflow import _LoggedRuns


def test_the_samples_of_the_hardware_go_with_the_newest_step_of_the_others(
    journal: Journal, entries: Callable[[], list[dict[str, Any]]]
) -> None:
    """MLflow numbers them by themselves, and from the start of the run."""
    runs = _LoggedRuns(journal)
    logged = [("system/gpu", 0), ("system/gpu", 1), ("loss", 1), ("loss", 2), ("eval", 1), ("system/gpu", 2)]
    for name, step in [*logged, ("loss", 1), ("system/gpu", 3)]:  # back to step 1
        runs.metrics([(name, 0.5, step)])
    steps = [(name, entry["step"]) for entry in entries() if "values" in entry for name in entry["values"]]
    assert [step for name, step in steps if name == "system/gpu"] == [0, 0, 2, 1]
    assert [step for name, step in steps if name != "system/gpu"] == [1, 2, 1, 1]
