"""The runs of a collector as a frame, read in pages."""

import pytest

from lossguard import Client, Rejected
from lossguard.client import stored_run
from tests.lossguard.delivery.answers import serving
from tests.monitor.client import NOW, AppClient, TestClient, Trainer
from tests.monitor.conftest import http as http


def test_runs_are_read_in_pages_and_the_collector_filters_them(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_run, "PAGE", 2)
    for number in range(5):
        config = {"lr": 10.0**-number, "tags": [f"t{number % 2}"]}
        Trainer(http, f"r{number}", project=f"p{number % 2}", config=config, started_at=NOW + number)
    http.post("/api/v1/runs/r3/finish", json={"state": "finished", "at": NOW})
    client = AppClient(http)
    assert list(client.runs().index) == ["r4", "r3", "r2", "r1", "r0"]
    assert client.runs().loc["r1", "config"] == {"lr": 0.1, "tags": ["t1"]}
    assert list(client.runs(project="p1").index) == ["r3", "r1"]
    assert list(client.runs(state="finished").index) == ["r3"]
    assert list(client.runs(tags=["t0"], limit=2).index) == ["r4", "r2"]
    assert list(client.runs(search="lr<0.05").index) == ["r4", "r3", "r2"]
    assert list(client.runs(since=NOW + 1).index) == []
    assert client.runs(project="none").dtypes.to_dict() == client.runs().dtypes.to_dict()
    with pytest.raises(ValueError, match="limit=0 must be a number of runs, from 1"):
        client.runs(limit=0)
    with pytest.raises(ValueError, match=r"tags='t0' must be a list of tags, as in \['t0'\]"):
        client.runs(tags="t0")


def test_a_collector_of_an_earlier_release_sends_all_and_cannot_search() -> None:
    runs = b'[{"id": "a", "state": "running"}, {"id": "b", "state": "failed"}]'
    with serving(body=runs) as server, Client(server.url) as client:
        assert list(client.runs(state="failed").index) == ["b"]
        assert list(client.runs(limit=1).index) == ["a"]
        with pytest.raises(Rejected, match="is of an earlier release and cannot search its runs: upgrade it"):
            client.runs(search="lr>1")
