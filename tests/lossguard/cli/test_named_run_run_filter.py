from typing import Any

import pytest

from lossguard.cli.named_run import matches, read
from lossguard.vocabulary.errors import ConfigurationError

RUN: dict[str, Any] = {
    "id": "gpt-1",
    "name": None,
    "project": "gpt small",
    "state": "running",
    "tags": ["paper"],
    "note": "the data changed",
    "archived_at": None,
    "step": 999,
    "open_incidents": 1,
    "waiting": 0,
    "metrics": {"loss": 2.25, "grad_norm": "NaN", "log_z": None},
    "config": {"optimizer": {"lr": 3e-4, "name": "adamw"}, "loss": "mse"},
}


@pytest.mark.parametrize(
    "text",
    [
        "gpt",
        "changed paper",
        "state:running tag:paper",
        "steps>=1k open_incidents=1 waiting=0",
        "lr<1e-3 optimizer.name=adamw",
        "config.lr=3e-4",
        "loss:mse metric.loss<2.5",
        "grad_norm=nan",
        "-archived",
        "name=gpt-1",
    ],
)
def test_a_run_is_found_by_what_the_list_knows_of_it(text: str) -> None:
    assert matches(read(text), RUN)


@pytest.mark.parametrize("text", ["llama", "-paper", "lr>1e-3", "metric.log_z>0", "config.grad_norm=nan", "archived"])
def test_and_not_by_anything_else(text: str) -> None:
    assert not matches(read(text), RUN)


def test_a_search_that_cannot_be_read_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"--search: loss>x: a number must follow >, not 'x'"):
        read("loss>x")
