"""The filters of the searches that MLflow's loggers make."""

import pytest

from db.models import MlflowRun, Run
from lossguard.states import RunState
from monitor.api.mlflow_search import matches, named
from monitor.problems import Problem

RUN = Run(id="a", project="p", name="warm", state=RunState.FINISHED, started_at=1.0, finished_at=None)
LOGGED = MlflowRun(
    experiment=1, user="me", params={"lr": "0.1"}, tags={"mlflow.runName": "warm", "a b": "x"}, inputs=[]
)


def test_an_experiment_is_found_by_its_name() -> None:
    assert named("name = 'gpt'") == named('  name="gpt" ') == named("attribute.name = 'gpt'") == "gpt"
    assert named("") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "attributes.run_name = 'warm'",
        "tags.mlflow.runName = 'warm' AND params.lr = '0.1'",
        "tags.`a b` = 'x'",
        "status = 'FINISHED' and run_id = \"a\"",
    ],
)
def test_a_run_passes_a_filter_that_it_fits(text: str) -> None:
    assert matches(text)(RUN, LOGGED)


@pytest.mark.parametrize("text", ["params.lr = '0.2'", "tags.other = 'x'", "status = 'FAILED'"])
def test_a_run_does_not_pass_another_filter(text: str) -> None:
    assert not matches(text)(RUN, LOGGED)


@pytest.mark.parametrize("text", ["metrics.loss < 1", "params.lr = '0.1' OR tags.a = 'b'", "name LIKE 'x%'"])
def test_a_filter_that_is_not_known_is_refused_with_those_that_are(text: str) -> None:
    for search in (matches, named):
        with pytest.raises(Problem, match=r"does not know the filter .* it knows .*= '\.\.'"):
            search(text)
