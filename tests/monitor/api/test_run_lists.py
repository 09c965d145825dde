"""What a client asks of a list of runs, and the pages that it gets."""

import pytest
import sqlalchemy as sa

from db.records.access import Scope
from lossguard.vocabulary.protocol import API
from tests.monitor.client import NOW, AppClient, TestClient, Trainer
from tests.monitor.tokens import create_token


@pytest.fixture
def five(http: TestClient) -> TestClient:
    for number in range(5):
        config = {"lr": 10.0**-number, "tags": [f"t{number % 2}"]}
        Trainer(http, f"r{number}", project=f"p{number % 2}", config=config, started_at=NOW + number)
    http.post(f"{API}/runs/r3/finish", json={"state": "finished", "at": NOW})
    http.patch(f"{API}/runs/r3", json={"archived": True})
    http.patch(f"{API}/runs/r0", json={"note": "Looks odd"})
    return http


def _ids(http: TestClient, query: str, route: str = "runs") -> list[str]:
    answer = http.get(f"{API}/{route}?{query}")
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json()]


def test_both_lists_have_the_same_filters_and_orders(five: TestClient) -> None:
    for route in ("runs", "overview"):
        for query, found in {
            "": "r4 r3 r2 r1 r0",
            "project=p1": "r3 r1",
            "state=finished": "r3",
            "state=finished&state=failed&state=running": "r4 r3 r2 r1 r0",
            "tag=t0&tag=t1": "",
            "tag=t1": "r3 r1",
            "archived=false": "r4 r2 r1 r0",
            "archived=true": "r3",
            "text=looks": "r0",
            "search=lr%3C0.05+-archived": "r4 r2",
            f"since={NOW + 1}": "",
            "sort=name": "r0 r2 r4 r1 r3",
            "limit=2": "r4 r3",
            "limit=1000&unheard=of": "r4 r3 r2 r1 r0",
        }.items():
            assert " ".join(_ids(five, query, route)) == found, (route, query)


def test_pages_follow_the_link_until_there_is_none(five: TestClient) -> None:
    client = AppClient(five)
    pages = client.pages("/runs?limit=2&sort=name&search=-t9&fields=id,state")
    first = next(pages)
    assert first == [{"id": "r0", "state": "running"}, {"id": "r2", "state": "running"}]
    Trainer(five, "new", project="a")
    assert [[run["id"] for run in page] for page in pages] == [["r4", "r1"], ["r3"]]
    assert "link" not in five.get(f"{API}/runs").headers


def test_only_the_fields_that_are_asked_for_are_sent(five: TestClient) -> None:
    assert five.get(f"{API}/runs?limit=1&fields=id,tags").json() == [{"id": "r4", "tags": None}]
    assert five.get(f"{API}/runs?fields=policy&limit=1").json()[0]["policy"]["mode"]
    shown = five.get(f"{API}/overview?limit=1&fields=tags,step,config,waiting").json()
    assert shown == [{"tags": ["t0"], "step": None, "config": {"lr": 1e-4, "tags": ["t0"]}, "waiting": 0}]


@pytest.mark.parametrize(
    ("query", "field", "sentence"),
    [
        ("limit=2&cursor=x", "cursor", "the cursor is none of this list: take it from the answer with the page before"),
        ("cursor=x", "limit", "a cursor is for pages: give limit=, too"),
        ("fields=id,secret", "fields", "there is no field 'secret'; there are archived_at, "),
        ("search=lr%3Eabc+x:", "search", "lr>abc: a number must follow >, not 'abc'. x:: a value must follow :, as in"),
        ("limit=0", "limit", "greater than or equal to 1"),
        ("limit=1001", "limit", "less than or equal to 1000"),
        ("state=dead", "state", "'running', "),
        ("sort=loss", "sort", "'newest', "),
        ("since=-1", "since", "greater than or equal to 0"),
        ("since=nan", "since", ""),
        ("text=%00", "text", ""),
        ("tag=%00", "tag", ""),
    ],
)
def test_a_query_that_cannot_be_read_is_refused_in_one_sentence(
    http: TestClient, query: str, field: str, sentence: str
) -> None:
    answer = http.get(f"{API}/runs?{query}")
    assert answer.status_code == 422
    assert field in answer.json()["where"]
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize("route", ["runs", "overview"])
def test_a_bound_token_searches_its_own_runs_only(five: TestClient, sqlite_engine: sa.Engine, route: str) -> None:
    for bound, query, listed in (
        ({"project": "p1"}, "limit=1&sort=name", ["r1"]),
        ({"project": "p1"}, "search=lr>0", ["r3", "r1"]),
        ({"project": "p1"}, "project=p0", []),
        ({"run": "r2"}, "text=r", ["r2"]),
    ):
        secret = create_token(sqlite_engine, f"{bound}{query}", Scope.READ, **bound)
        answer = five.get(f"{API}/{route}?{query}", headers={"authorization": f"Bearer {secret}"})
        assert [run["id"] for run in answer.json()] == listed
