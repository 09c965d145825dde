"""Which run a person means, and which curves a report contains."""

import pytest

from dashboard.report.contents import NoSuchRun, curve_names, find_run
from db.models import Run

RUNS = [
    Run(id="night-2", project="gpt", name="wide"),
    Run(id="night-1", project="gpt", name="deep"),
    Run(id="night", project="gpt", name=None),
    Run(id="day-1", project="lab", name="wide"),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("night", "night"),
        ("lab/wide", "day-1"),
        ("deep", "night-1"),
        ("da", "day-1"),
        ("night-2", "night-2"),
        ("latest", "night-2"),
    ],
)
def test_a_run_is_named_by_its_id_its_name_or_the_beginning_of_its_id(wanted: str, found: str) -> None:
    assert find_run(RUNS, wanted).id == found


@pytest.mark.parametrize("wanted", ["wide", "nigh"])
def test_a_name_that_fits_several_runs_is_answered_with_their_ids(wanted: str) -> None:
    with pytest.raises(NoSuchRun, match=f"'{wanted}' matches . runs; name one by its id: night-2, "):
        find_run(RUNS, wanted)


@pytest.mark.parametrize("wanted", ["evening", "", "gpt/none", "None"])
def test_a_name_that_fits_no_run_is_answered_with_the_newest_ones(wanted: str) -> None:
    with pytest.raises(NoSuchRun, match=f"no run '{wanted}' in this store; the newest are: night-2, night-1"):
        find_run(RUNS, wanted)


def test_the_default_charts_come_first_and_then_the_scalars_of_the_user() -> None:
    metrics = ["lr", "loss", "tokens", "batch_index", "my/score", "throughput"]
    assert curve_names(metrics) == ["loss", "lr", "throughput", "my/score"]
