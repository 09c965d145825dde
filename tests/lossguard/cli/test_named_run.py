import pytest

from lossguard import Client
from lossguard.cli.errors import CommandError
from lossguard.cli.named_run import chosen, find
from tests.lossguard.cli.small_runs import SmallRun

RUNS = [
    {"id": "gpt-2", "name": "second", "state": "running", "started_at": 2.0},
    {"id": "gpt-1", "name": "first", "state": "finished", "started_at": 1.0},
    {"id": "gpt", "name": "gpt-1x", "state": "finished", "started_at": 0.0},
    {"id": "twin-a", "name": "twin", "state": "failed", "started_at": 0.0},
    {"id": "twin-b", "name": "twin", "state": "failed", "started_at": 0.0},
]


@pytest.mark.parametrize(
    ("text", "run_id"),
    [
        ("gpt", "gpt"),
        ("gpt-1", "gpt-1"),
        ("gpt-1x", "gpt"),
        ("first", "gpt-1"),
        ("twin-a", "twin-a"),
        ("latest", "gpt-2"),
    ],
)
def test_a_run_is_named_by_its_id_its_name_the_beginning_of_an_id_or_latest(text: str, run_id: str) -> None:
    assert chosen(text, RUNS) == run_id


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tw", r"'tw' names 2 runs: twin-a \(failed, twin\), twin-b \(failed, twin\); give the id of one"),
        ("twin", "'twin' names 2 runs"),
        ("nope", "no run has the id or the name 'nope'; `lossguard runs` lists"),
        ("", "no run has the id"),
    ],
)
def test_a_name_of_none_or_several_runs_is_an_error_that_lists_them(text: str, sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence) as caught:
        chosen(text, RUNS)
    assert caught.value.code == 3


def test_the_run_of_a_real_collector_is_found(collector_client: Client) -> None:
    for text in ("x", "latest"):
        with pytest.raises(CommandError, match="there are no runs"):
            find(collector_client, text)
    SmallRun(collector_client, "another", started_at=1.0)
    SmallRun(collector_client, "only-one", name="my run/1")
    for unknown in ("nobody", 'quoted "name"', ""):
        with pytest.raises(CommandError, match="no run has the id or the name"):
            find(collector_client, unknown)
    assert {find(collector_client, text)["id"] for text in ("only-one", "on", "my run/1", "latest")} == {"only-one"}
    SmallRun(collector_client, "one-more")
    with pytest.raises(CommandError, match=r"'on' names 2 runs: one-more .*, only-one"):
        find(collector_client, "on")
