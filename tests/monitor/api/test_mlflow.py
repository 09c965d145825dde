"""The filters of the searches that MLflow's loggers make."""

import pytest

from db.models import MlflowRun, Run
from lossguard.vocabulary.states import RunState
from monitor.api.mlflow import RunSearch, named, run_search
from monitor.problems import Problem

RUN = Run(id="a", project="p", name="warm", state=RunState.FINISHED, started_at=1.0, finished_at=None)
LOGGED = MlflowRun(
    experiment=1, user="me", params={"lr": "0.1"}, tags={"mlflow.runName": "warm", "a b": "x"}, inputs=[]
)


def test_an_experiment_is_found_by_its_name() -> None:
    assert named("name = 'gpt'") == named('  name="gpt" ') == named("attribute.name = 'gpt'") == "gpt"
    assert named("") is None


def test_a_filter_of_runs_asks_for_attributes_params_and_tags() -> None:
    assert run_search("") == RunSearch()
    assert run_search("attributes.run_name = 'warm'") == RunSearch(attributes=[("run_name", "warm")])
    found = run_search("tags.mlflow.runName = 'warm' AND params.lr = '0.1'")
    assert found == RunSearch(tags=[("mlflow.runName", "warm")], params=[("lr", "0.1")])
    assert run_search("tags.`a b` = 'x'").tags == [("a b", "x")]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("attributes.run_name = 'warm'", True),
        ("status = 'FINISHED' and run_id = \"a\"", True),
        ("status = 'FAILED'", False),
    ],
)
def test_a_run_fits_the_attributes_of_a_filter(text: str, fits: bool) -> None:
    assert run_search(text).fits(RUN, LOGGED) is fits


@pytest.mark.parametrize("text", ["metrics.loss < 1", "params.lr = '0.1' OR tags.a = 'b'", "name LIKE 'x%'"])
def test_a_filter_that_is_not_known_is_refused_with_those_that_are(text: str) -> None:
    for search in (run_search, named):
        with pytest.raises(Problem, match=r"does not know the filter .* it knows .*= '\.\.'"):
            search(text)
