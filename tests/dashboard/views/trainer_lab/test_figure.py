"""The figures of the Trainer lab."""

import json
import math
from typing import Any

import pytest

from dashboard.data.compute import PUBLISHED
from dashboard.data.lab_results import LabResults
from dashboard.data.lab_results_file import parse, shipped
from dashboard.figures import component
from dashboard.views.trainer_lab import figure, tables
from dashboard.views.trainer_lab.sections import sections
from tests.dashboard.hostile_runs import MARKUP
from tests.dashboard.views.trainer_lab.results import SIZE, SWEEPS, SWITCH, lines


@pytest.fixture(scope="module")
def measured() -> LabResults:
    results = shipped()
    assert results is not None
    return results


def test_bits_per_character_stand_beside_the_perplexity(measured: LabResults) -> None:
    (points,) = figure.switches_figure(measured.switches).data
    table = tables.switches(measured.switches)
    assert list(points.customdata) == table["Bits per character"].tolist()
    perplexities = [float(value.split()[0]) for value in table["Perplexity"]]
    assert [float(text.removeprefix("perplexity ")) for text in points.text] == pytest.approx(perplexities, rel=1e-3)
    several = table["Seeds"].astype(int) > 1
    assert [error > 0 for error in points.error_x.array] == several.tolist()


def test_data_that_is_not_text_has_bits_per_token_in_their_place() -> None:
    runs = parse("mine.jsonl", lines(SWITCH | {"bits_per_byte": None, "bits_per_character": None})).switches
    drawing = figure.switches_figure(runs)
    assert drawing.layout.xaxis.title.text == "Held-out bits per token"
    assert drawing.data[0].x[0] == pytest.approx(2.0 / math.log(2))


def test_the_sweep_has_two_log_axes_its_sizes_with_errors_and_both_laws(measured: LabResults) -> None:
    drawing = figure.scaling_figure(measured.scaling)
    assert (drawing.layout.xaxis.type, drawing.layout.yaxis.type) == ("log", "log")
    points, law, smaller = drawing.data
    assert len(points.x) == len({run.width for run in measured.scaling})
    assert all(error > 0 for error in points.error_y.array)
    slope = math.log(law.y[-1] / law.y[0]) / math.log(law.x[-1] / law.x[0])
    assert slope == pytest.approx(-0.114, abs=5e-4)  # docs/lesson.md
    assert smaller.y[-1] == pytest.approx(1.892, abs=5e-4)


def test_the_ticks_of_a_narrow_log_axis_are_written_out_and_a_wide_one_has_powers(measured: LabResults) -> None:
    axis = figure.scaling_figure(measured.scaling).layout.xaxis
    assert (axis.dtick, axis.tickformat) == ("D2", ".0e")
    runs = parse("mine.jsonl", lines(SIZE, SIZE | {"width": 9, "parameters": 10**12})).scaling
    assert figure.scaling_figure(runs).layout.xaxis.dtick is None


def test_every_published_run_and_the_ends_of_the_sweep_are_on_one_scale(measured: LabResults) -> None:
    (points,) = figure.compute_figure(measured.scaling).data
    assert len(points.y) == len(PUBLISHED) + 2
    assert sum("(estimated)" in label for label in points.y) == sum(run.is_estimated for run in PUBLISHED)
    assert min(points.x) == min(6.0 * run.parameters * run.tokens for run in measured.scaling)
    (without,) = figure.compute_figure([]).data
    assert len(without.y) == len(PUBLISHED)


def test_the_temperature_leaves_the_loss_as_it_is(measured: LabResults) -> None:
    loss, entropy = figure.temperature_figure(measured.temperature).data
    assert len(set(loss.y)) == 1
    assert list(entropy.y) == sorted(entropy.y)


def test_a_name_is_shown_as_text_and_shortened() -> None:
    drawing = figure.switches_figure(parse("mine.jsonl", lines(SWITCH | {"recipe": MARKUP})).switches)
    (label,) = drawing.layout.yaxis.ticktext
    assert "<" not in label
    assert label.startswith("&lt;script")


def test_a_figure_shows_so_many_rows_and_no_more() -> None:
    runs = parse("mine.jsonl", lines(*(SWITCH | {"recipe": f"r{number}"} for number in range(99)))).switches
    assert len(figure.switches_figure(runs).data[0].y) == figure.MAX_ROWS


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
            packed = component.pack(plot.make())  # refuses NaN
            assert packed.height < 1000
            for trace in plot.make().data:
                numbers = json.loads(json.dumps([*trace.x, *trace.y], default=float))
                assert all(abs(each) <= 1e300 for each in numbers if isinstance(each, float))
