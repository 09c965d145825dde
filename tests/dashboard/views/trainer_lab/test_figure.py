"""The figures of the Trainer lab."""

import json
from typing import Any

import pytest

from dashboard.data.trainer.lab_results_file import parse
from dashboard.figures import component
from dashboard.views.trainer_lab.sections import sections
from tests.dashboard.views.trainer_lab.results import SIZE, SWEEPS, lines

VALUES = ["NaN", "Infinity", "-Infinity", 1e308, -1e308, 5e-324, 0.0, -2.0]


@pytest.mark.parametrize("value", VALUES)
def test_every_figure_is_drawable_whatever_was_measured(value: object) -> None:
    def changed(result: dict[str, Any]) -> dict[str, Any]:
        numbers = {name for name, old in result.items() if isinstance(old, float)}
        return result | dict.fromkeys(numbers - {"loss_floor"}, value)

    sizes = [SIZE | {"width": width, "parameters": 10 * width} for width in (1, 2, 3)]
    results = parse("mine.jsonl", lines(*map(changed, [*SWEEPS, *sizes])))
    for section in sections(results):
        for plot in section.plots:
            packed = component.pack(plot.make(section.runs))  # refuses NaN
            assert packed.height < 1000
            for trace in plot.make(section.runs).data:
                numbers = json.loads(json.dumps([*trace.x, *trace.y], default=float))
                assert all(abs(each) <= 1e300 for each in numbers if isinstance(each, float))
