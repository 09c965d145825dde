"""What the Trainer lab shows of each sweep."""

import pytest

from dashboard.data.trainer.lab_results_file import parse, shipped
from dashboard.views.trainer_lab.sections import command, sections
from tests.dashboard.views.trainer_lab.results import SIZE, SWITCH, lines


def test_every_sweep_has_a_sentence_per_plot_and_the_command_that_measured_it() -> None:
    results = shipped()
    assert results is not None
    shown = list(sections(results))
    assert [section.title for section in shown] == [
        "Switches: loss, perplexity and bits",
        "Loss against compute",
        "What prevents spikes",
        "Exposure bias",
        "Temperature",
        "Why squared error fails",
        "Label smoothing and calibration",
        "One objective, many abilities",
        "Compute of published runs",
    ]
    assert all(plot.sentence.endswith(".") for section in shown for plot in section.plots)
    seeds = len({run.seed for run in results.scaling})
    assert shown[1].command == f"python -m trainer lab --scaling --seeds {seeds} --json"
    assert [section.command.startswith("python -m trainer lab ") for section in shown[:-1]] == [True] * 8


@pytest.mark.parametrize(
    ("seeds", "options"),
    [([1], " --seeds 1"), ([1, 2, 1], " --seeds 2"), ([4, 5], " --seed 4 --seeds 2"), ([1, 3], ""), ([], "")],
)
def test_a_command_names_consecutive_seeds(seeds: list[int], options: str) -> None:
    assert command("--unstable", seeds) == f"python -m trainer lab --unstable{options} --json"


@pytest.mark.parametrize("name", ["a; rm -rf ~", "a\nb", "$(id)", "--plot", "a b", "\u0430"])
def test_a_hostile_recipe_gives_no_command_that_a_viewer_could_copy(name: str) -> None:
    (section, _) = sections(parse("mine.jsonl", lines(SWITCH | {"recipe": name})))
    assert section.command == ""


def test_the_law_is_in_the_note_and_a_sweep_without_one_says_why() -> None:
    results = shipped()
    assert results is not None
    note = list(sections(results))[1].note
    assert "loss = 40.92 · C^-0.114" in note
    assert "predicts 1.892 for the largest one, which reached 1.8609" in note
    assert "at least three amounts of compute" in next(sections(parse("mine.jsonl", lines(SIZE)))).note
