"""MLflow's REST API, request by request."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.lineage import StepRange
from db.records.access import Scope
from db.steps.reader import read_blocks
from db.steps.step_block import StepBlock
from lossguard.vocabulary.protocol import API
from monitor.api import mlflow as views
from monitor.problems import MLFLOW_API
from tests.monitor.client import NOW, TestClient, collector
from tests.monitor.mlflow import MlflowClient
from tests.monitor.tokens import create_token


def test_an_experiment_is_created_once_and_found_by_name_and_id(http: TestClient) -> None:
    client = MlflowClient(http)
    missing = http.get(f"{MLFLOW_API}/experiments/get-by-name", params={"experiment_name": "gpt"})
    assert (missing.status_code, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    number = client.post("experiments/create", name="gpt", tags=[{"key": "a", "value": "b"}])["experiment_id"]
    again = client.post("experiments/create", answered=400, name="gpt")
    assert again["error_code"] == "RESOURCE_ALREADY_EXISTS"
    client.post("experiments/set-experiment-tag", experiment_id=number, key="c", value="d")
    found = client.get("experiments/get-by-name", experiment_name="gpt")["experiment"]
    assert found == client.get("experiments/get", experiment_id=number)["experiment"]
    assert (found["experiment_id"], found["name"], found["lifecycle_stage"]) == (number, "gpt", "active")
    assert {tag["key"]: tag["value"] for tag in found["tags"]} == {"a": "b", "c": "d"}
    names = [one["name"] for one in client.post("experiments/search")["experiments"]]
    assert names == ["gpt", "Default"]
    assert client.post("experiments/search", filter="name = 'gpt'")["experiments"] == [found]
    page = client.post("experiments/search", max_results=1)
    assert [
        one["name"] for one in client.post("experiments/search", page_token=page["next_page_token"])["experiments"]
    ] == ["Default"]


def test_a_run_is_shown_as_it_was_logged(http: TestClient) -> None:
    number = http.post(f"{MLFLOW_API}/experiments/create", json={"name": "gpt"}).json()["experiment_id"]
    client = MlflowClient(http, experiment_id=number, run_name="warm", user_id="me")
    client.post("runs/log-inputs", run_id=client.run_id, datasets=[{"dataset": {"name": "c4", "digest": "1"}}])
    client.log("loss", math.inf, step=3)
    client.post("runs/update", run_id=client.run_id, run_name="hot")
    info = client.end("KILLED")["run_info"]
    shown = client.shown()
    assert shown["info"] == info
    assert (info["run_name"], info["status"], info["user_id"], info["experiment_id"]) == ("hot", "KILLED", "me", number)
    assert (info["start_time"], info["end_time"]) == (int(NOW * 1000), int(NOW + 900) * 1000)
    assert shown["data"]["metrics"] == [
        {"key": "loss", "value": "Infinity", "timestamp": int(NOW + 3) * 1000, "step": 3}
    ]
    assert shown["inputs"]["dataset_inputs"] == [{"dataset": {"name": "c4", "digest": "1"}}]
    (found,) = client.post("runs/search", experiment_ids=[number], filter="attributes.run_name = 'hot'")["runs"]
    assert found["info"] == info
    assert client.run()["project"] == "gpt"


def test_runs_are_found_by_params_and_tags_in_pages_also_while_new_ones_start(http: TestClient) -> None:
    number = http.post(f"{MLFLOW_API}/experiments/create", json={"name": "gpt"}).json()["experiment_id"]
    clients = []
    for place in range(7):
        tags = [{"key": 'a "b"', "value": str(place % 2)}]
        clients.append(MlflowClient(http, experiment_id=number, start_time=1000 * (place // 2), tags=tags))
        for key in ("optimizer.lr", "back\\slash"):
            clients[-1].post("runs/log-parameter", run_id=clients[-1].run_id, key=key, value="0.1")
    client = clients[0]
    newest_first = sorted(clients, key=lambda each: (-(clients.index(each) // 2), each.run_id))

    def ids(page: dict[str, Any]) -> list[str]:
        return [one["info"]["run_id"] for one in page["runs"]]

    asked: dict[str, Any] = {"experiment_ids": [number], "max_results": 3, "filter": "params.optimizer.lr = '0.1'"}
    first = client.post("runs/search", **asked)
    MlflowClient(http, experiment_id=number, start_time=9000)
    second = client.post("runs/search", **asked, page_token=first["next_page_token"])
    third = client.post("runs/search", **asked, page_token=second["next_page_token"])
    assert ids(first) + ids(second) + ids(third) == [each.run_id for each in newest_first]
    assert "next_page_token" not in third
    odd = client.post("runs/search", experiment_ids=[number], filter="""tags.`a "b"` = '1'""")
    assert set(ids(odd)) == {each.run_id for each in clients[1::2]}
    odd = client.post("runs/search", experiment_ids=[number], filter=r"params.`back\slash` = '0.1'")
    assert len(odd["runs"]) == 7
    assert client.post("runs/search", experiment_ids=[number], filter="params.optimizer.lr = '1'") == {"runs": []}
    refused = client.post("runs/search", answered=400, experiment_ids=[number], page_token="3")
    assert "take it from the answer with the page before" in refused["message"]


def test_runs_are_listed_the_newest_first_and_another_order_is_refused_in_a_sentence(http: TestClient) -> None:
    client = MlflowClient(http)
    ordered = client.post("runs/search", experiment_ids=["0"], order_by=["attributes.start_time DESC"])
    assert [one["info"]["run_id"] for one in ordered["runs"]] == [client.run_id]
    refused = client.post("runs/search", answered=400, experiment_ids=["0"], order_by=["metrics.loss ASC"])
    assert "does not know the order 'metrics.loss ASC'; it lists the newest first" in refused["message"]


def test_a_history_has_stored_and_open_rows_under_the_name_of_the_client(http: TestClient) -> None:
    client = MlflowClient(http)
    client.log_rows(0, {"train/loss": [1.0, math.nan, 3.0] * 30})
    client.log("train/loss", 4.0, step=90)
    found = client.get("metrics/get-history", run_id=client.run_id, metric_key="train/loss")["metrics"]
    assert [one["step"] for one in found] == list(range(91))
    assert [one["value"] for one in found[:3]] == [1.0, "NaN", 3.0]
    assert {one["key"] for one in found} == {"train/loss"}
    assert client.get("metrics/get-history", run_id=client.run_id, metric_key="nothing")["metrics"] == []
    page = client.get("metrics/get-history", run_id=client.run_id, metric_key="train/loss", max_results=50)
    rest = client.get(
        "metrics/get-history", run_id=client.run_id, metric_key="train/loss", page_token=page["next_page_token"]
    )
    assert page["metrics"] + rest["metrics"] == found


@pytest.mark.parametrize("size", [30, 70, 139, 140])
def test_a_page_of_a_history_reads_no_segment_after_it_and_the_last_one_has_the_latest_value(
    http: TestClient, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def noted(session: Session, *, step_range: StepRange, **others: Any) -> Iterator[StepBlock]:
        segments.append(step_range.segment)
        return read_blocks(session, step_range=step_range, **others)

    client, segments, shown = MlflowClient(http), list[int](), list[Any]()
    client.log_rows(0, {"loss": [1.0] * 100})
    client.log_rows(60, {"loss": [2.0] * 40}, at=200)
    client.log("grad_norm", 1.0, step=99, at=300)
    client.log("loss", 3.0, step=99, at=301)
    monkeypatch.setattr(views, "read_blocks", noted)
    token: str | None = "0"
    while token is not None:
        query = {"max_results": size, "page_token": token}
        page = client.get("metrics/get-history", run_id=client.run_id, metric_key="loss", **query)
        if token == "0" and size < 99:
            assert segments == [0]
        shown += page["metrics"]
        token = page.get("next_page_token")
    assert [one["step"] for one in shown] == [*range(100), *range(60, 100)]
    assert (shown[-1]["value"], shown[-1]["timestamp"]) == (3.0, round(NOW + 301) * 1000)
    assert "metrics" in client.get("metrics/get-history", run_id=client.run_id, metric_key="loss", page_token=10**30)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/2.0/mlflow/runs/delete"),
        ("GET", "/api/2.0/mlflow/artifacts/list"),
        ("POST", "/api/3.0/mlflow/traces"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/a/artifacts/x"),
        ("GET", "/api/2.0/mlflow/runs/create"),
    ],
)
def test_another_route_of_mlflow_is_answered_with_404_and_a_sentence(http: TestClient, method: str, path: str) -> None:
    answer = http.request(method, path, json={})
    assert answer.status_code == 404
    assert answer.json()["message"].startswith("the collector takes experiments, runs, metrics")


METRIC = {"key": "loss", "value": 1.0, "timestamp": 0, "step": 0}


@pytest.mark.parametrize(
    "wrong",
    [
        *({"key": None}, {"key": ""}, {"key": "x" * 129}, {"value": "one"}, {"value": True}, {"value": None}),
        *({"step": -1}, {"step": 2**53}, {"step": "x"}, {"timestamp": -1}),
        *({"run_id": 31}, {"run_id": None}, {"run_id": "nobody"}),
    ],
)
def test_a_wrong_metric_is_refused_in_the_form_that_clients_read(http: TestClient, wrong: dict[str, Any]) -> None:
    client = MlflowClient(http)
    answer = http.post(f"{MLFLOW_API}/runs/log-metric", json={"run_id": client.run_id} | METRIC | wrong)
    assert answer.status_code in (400, 404)
    assert set(answer.json()) >= {"error_code", "message"}
    assert client.shown()["data"]["metrics"] == []


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-3", '"NaN"'])
def test_numbers_are_taken_as_clients_write_them(http: TestClient, value: str) -> None:
    client = MlflowClient(http)
    body = f'{{"run_id": "{client.run_id}", "key": "a", "value": {value}, "timestamp": "5", "step": "7"}}'
    answer = http.post(f"{MLFLOW_API}/runs/log-metric", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    (metric,) = client.shown()["data"]["metrics"]
    assert (metric["timestamp"], metric["step"]) == (5, 7)


def test_a_token_needs_the_scope_of_a_trainer_and_covers_its_project_alone(sqlite_engine: sa.Engine) -> None:
    tokens = {
        "gpt": create_token(sqlite_engine, "gpt", Scope.REPORT, project="gpt"),
        "all": create_token(sqlite_engine, "all", Scope.REPORT),
        "viewer": create_token(sqlite_engine, "viewer", Scope.READ),
    }

    def ask(who: str, route: str, **body: Any) -> Any:
        headers = {"authorization": f"Bearer {tokens.get(who, who)}"}
        return http.post(f"{MLFLOW_API}/{route}", json=body, headers=headers)

    with collector(sqlite_engine) as http:
        number = ask("gpt", "experiments/create", name="gpt").json()["experiment_id"]
        other = ask("all", "experiments/create", name="other").json()["experiment_id"]
        assert ask("gpt", "experiments/create", name="mine").json()["error_code"] == "PERMISSION_DENIED"
        assert ask("gpt", "runs/create", experiment_id=other).status_code == 404
        run = ask("gpt", "runs/create", experiment_id=number).json()["run"]["info"]["run_id"]
        foreign = ask("all", "runs/create", experiment_id=other).json()["run"]["info"]["run_id"]
        assert ask("gpt", "runs/log-metric", run_id=run, **METRIC).status_code == 200
        assert ask("gpt", "runs/log-metric", run_id=foreign, **METRIC).status_code == 404
        assert ask("viewer", "runs/log-metric", run_id=run, **METRIC).json()["error_code"] == "PERMISSION_DENIED"
        assert ask("nobody", "runs/log-metric", run_id=run, **METRIC).json()["error_code"] == "UNAUTHENTICATED"
        assert ask("viewer", "runs/search", experiment_ids=[number, other]).status_code == 200
        assert ask("gpt", "runs/search", experiment_ids=[number]).status_code == 403


def test_a_token_of_a_run_sees_and_changes_no_experiment_but_that_of_its_run(sqlite_engine: sa.Engine) -> None:
    runs = {"all": None, "job": "r1", "later": "r9"}
    both = (Scope.REPORT, Scope.READ)
    tokens = {name: create_token(sqlite_engine, name, *both, run=run) for name, run in runs.items()}

    def ask(who: str, route: str, **body: Any) -> Any:
        headers = {"authorization": f"Bearer {tokens[who]}"}
        if body.pop("get", False):
            return http.get(f"{MLFLOW_API}/{route}", params=body, headers=headers)
        return http.post(f"{MLFLOW_API}/{route}", json=body, headers=headers)

    def names(who: str, **body: Any) -> list[str]:
        return [each["name"] for each in ask(who, "experiments/search", **body).json()["experiments"]]

    with collector(sqlite_engine) as http:
        numbers = {
            name: ask("all", "experiments/create", name=name).json()["experiment_id"] for name in ("gpt", "other")
        }
        registration = {"id": "r1", "project": "gpt", "started_at": NOW}
        owner = {"authorization": f"Bearer {tokens['all']}"}
        assert http.post(f"{API}/runs", json=registration, headers=owner).status_code == 201
        assert names("all") == ["other", "gpt", "Default"]
        assert names("job") == names("job", filter="name = 'gpt'") == ["gpt"]
        assert names("job", filter="name = 'other'") == names("job", filter="name = 'Default'") == []
        assert names("later") == names("later", filter="name = 'gpt'") == []  # there is no such run yet
        for who, name in (("job", "other"), ("job", "Default"), ("job", "none"), ("later", "gpt")):
            number = numbers.get(name, "0" if name == "Default" else "77")
            for answer in (
                ask(who, "experiments/get-by-name", experiment_name=name, get=True),
                ask(who, "experiments/get", experiment_id=number, get=True),
                ask(who, "experiments/set-experiment-tag", experiment_id=number, key="a", value="b"),
                ask(who, "runs/create", experiment_id=number),
            ):
                assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
        for name in ("gpt", "other", "new"):  # the answer says nothing about which there are
            assert ask("job", "experiments/create", name=name).json()["error_code"] == "PERMISSION_DENIED"
        assert ask("job", "experiments/get", experiment_id=numbers["gpt"], get=True).status_code == 200
        assert ask("job", "experiments/set-experiment-tag", experiment_id=numbers["gpt"], key="a").status_code == 200
        assert ask("job", "runs/create", experiment_id=numbers["gpt"]).json()["error_code"] == "PERMISSION_DENIED"
        assert names("all") == ["other", "gpt", "Default"]


def test_experiments_are_bounded_in_number_and_in_their_tags(sqlite_engine: sa.Engine) -> None:
    with collector(sqlite_engine, max_runs=2) as http:

        def create(name: str, *tags: tuple[str, str]) -> Any:
            body = {"name": name, "tags": [{"key": key, "value": value} for key, value in tags]}
            return http.post(f"{MLFLOW_API}/experiments/create", json=body)

        many, long = [(f"{at}", "") for at in range(101)], [(f"{at}", "x" * 10_000) for at in range(7)]
        assert "at most 100 tags" in create("a", *many).json()["message"]
        assert "at most 100 tags" in create("a", *long).json()["message"]
        number = create("a", *many[:100]).json()["experiment_id"]
        body = {"experiment_id": number, "key": "one more", "value": ""}
        assert http.post(f"{MLFLOW_API}/experiments/set-experiment-tag", json=body).status_code == 400
        assert http.post(f"{MLFLOW_API}/experiments/set-experiment-tag", json=body | {"key": "7"}).status_code == 200
        assert create("b").status_code == 200
        refused = create("c")
        assert (refused.status_code, "raise LOSSGUARD_MAX_RUNS" in refused.json()["message"]) == (400, True)
        found, token = [], ""
        for _ in range(3):
            page = http.post(f"{MLFLOW_API}/experiments/search", json={"max_results": 1, "page_token": token}).json()
            found += [each["name"] for each in page["experiments"]]
            token = page.get("next_page_token", "")
        assert (found, token) == (["b", "a", "Default"], "")
