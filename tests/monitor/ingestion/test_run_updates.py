"""What an MLflow client logs becomes rows of a run, on the way that reports take."""

import csv
import io
import math

import pytest
import sqlalchemy as sa

from db.models import BlockValues, RunStatus
from db.store.engine import reading, writing
from lossguard.vocabulary.protocol import API
from monitor.problems import MLFLOW_API
from tests.monitor.client import NOW, Clock, Pair, TestClient, collector
from tests.monitor.mlflow import MlflowClient
from tests.monitor.scenarios import noise


def steps(client: MlflowClient, *names: str) -> dict[int, tuple[float | None, ...]]:
    """The stored steps with these metrics, by an export; of a step in several segments the newest."""
    text = client.http.get(f"{API}/runs/{client.run_id}/export", params={"format": "csv"}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    return {int(row["step"]): tuple(float(row[name]) if row[name] else None for name in names) for row in rows}


def test_scalars_of_one_step_in_several_requests_are_one_row(http_on_both: TestClient) -> None:
    client = MlflowClient(http_on_both)
    for step in range(12):
        client.log("train/loss", 3.0 - step / 100, step=step)
        client.log("grad_norm", 1.0 + step, step=step)
        if step % 5 == 0:
            client.log("eval/loss", 4.0, step=step)
    client.end()
    assert steps(client, "loss", "grad_norm", "held_out_loss") == {
        step: (3.0 - step / 100, 1.0 + step, 4.0 if step % 5 == 0 else None) for step in range(12)
    }
    assert client.run()["state"] == "finished"
    assert client.run()["segments"][0]["num_steps"] == 12


def test_a_nan_loss_is_an_incident_at_its_step(http: TestClient) -> None:
    client = MlflowClient(http)
    client.log_rows(0, {"loss": noise(1, 200), "learning_rate": [0.1] * 200})
    client.log_rows(200, {"loss": [math.nan], "learning_rate": [0.1]})
    (incident,) = client.run("/incidents")
    assert (incident["kind"], incident["onset_step"], incident["detected_step"]) == ("nonfinite", 200, 200)
    latest = {metric["key"]: metric["value"] for metric in client.shown()["data"]["metrics"]}
    assert latest == {"loss": "NaN", "learning_rate": 0.1}


def test_a_request_that_is_sent_again_changes_nothing(http_on_both: TestClient) -> None:
    client = MlflowClient(http_on_both)
    client.log_rows(0, {"loss": [3.0] * 80})
    for step in (80, 80, 40, 80):
        client.log("loss", 3.0, step=step)
    assert len(client.run()["segments"]) == 1
    assert client.run()["steps_consumed"] == 81


def test_two_collectors_join_the_scalars_of_one_step(pair_on_both: Pair) -> None:
    client = MlflowClient(pair_on_both[0])
    for step in range(6):
        for number, name in enumerate(("loss", "grad_norm", "accuracy")):
            client.http = pair_on_both[number % 2]
            client.log(name, float(step), step=step)
    client.end()
    assert steps(client, "loss", "grad_norm", "accuracy") == {step: (float(step),) * 3 for step in range(6)}


def test_a_collector_that_starts_anew_between_two_requests_loses_nothing(engine: sa.Engine) -> None:
    client = None
    for step in range(3):
        for name in ("loss", "grad_norm"):
            with collector(engine) as http:
                client = client or MlflowClient(http)
                client.http = http
                client.log(name, float(step), step=step)
    assert client is not None
    with collector(engine) as http:
        client.http = http
        client.end("FAILED")
        assert steps(client, "loss", "grad_norm") == {step: (float(step),) * 2 for step in range(3)}
        assert client.run()["state"] == "failed"


def test_a_metric_that_comes_after_its_row_joins_it_and_the_charts_know_it(http_on_both: TestClient) -> None:
    client = MlflowClient(http_on_both)
    client.log_rows(0, {"loss": [3.0] * 100})
    client.log("test_accuracy", 0.5, step=0, at=500)
    client.log("accuracy", math.inf, step=40, at=501)
    client.log("accuracy", 0.25, step=40, at=502)
    client.end()
    stored = steps(client, "loss", "test_accuracy", "accuracy")
    assert stored[0] == (3.0, 0.5, None)
    assert stored[40] == (3.0, None, 0.25)
    assert len(stored) == 100
    series = client.run("/series", metric="test_accuracy", points=1)
    assert sum(series["count"]) == 1
    assert len(client.run()["segments"]) == 1


def test_a_metric_that_comes_late_within_an_open_bucket_is_in_its_roll_up(http: TestClient) -> None:
    client = MlflowClient(http)
    client.log_rows(0, {"loss": [3.0] * 600})
    client.log("accuracy", 0.5, step=580, at=700)
    client.log_rows(600, {"loss": [3.0] * 400})
    client.end()
    series = client.run("/series", metric="accuracy", points=2)
    assert sum(series["count"]) == 1


@pytest.mark.parametrize("key", ["accuracy", "loss"])
def test_a_metric_that_comes_late_for_steps_whose_values_are_gone_is_refused(
    http: TestClient, sqlite_engine: sa.Engine, key: str
) -> None:
    client = MlflowClient(http)
    client.log_rows(0, {"loss": [3.0] * 600})
    client.log_rows(600, {"loss": [3.0] * 10})
    with sqlite_engine.begin() as connection:
        connection.execute(sa.delete(BlockValues))
    message = client.log(key, 0.5, step=100, at=100, answered=400)["message"]
    assert message.startswith("step 100 comes among stored steps that cannot be read: the values of loss of run ")
    client.log("loss", 3.0, step=610)


def test_a_loss_of_a_stored_step_is_replaced_with_its_perplexity(http: TestClient) -> None:
    client = MlflowClient(http)
    client.log_rows(0, {"loss": [3.0] * 100})
    client.log("loss", math.nan, step=10, at=10)  # no newer than the others: not a rewind
    client.end()
    loss, perplexity = steps(client, "loss", "perplexity")[10]
    assert isinstance(loss, float)
    assert math.isnan(loss)
    assert perplexity is None


def test_a_loop_that_goes_back_opens_a_segment_at_the_step_it_goes_back_to(http_on_both: TestClient) -> None:
    client = MlflowClient(http_on_both)
    losses = noise(2, 120)
    client.log_rows(0, {"loss": losses[:100], "lr": [0.1] * 100})
    client.log_rows(60, {"loss": losses[60:], "lr": [0.1] * 60}, at=260)
    client.log("accuracy", 0.5, step=90, at=90)  # logged before the loop went back: it comes late
    client.end()
    first, second = client.run()["segments"]
    assert (first["first_step"], first["last_step"], first["num_steps"]) == (0, 99, 100)
    assert (second["fork_step"], second["parent"], second["last_step"], second["num_steps"]) == (60, 0, 119, 60)
    assert second["reason"] == "rewind"
    assert len(steps(client, "loss")) == 120
    assert client.run("/incidents") == []


def test_a_run_that_is_continued_runs_again(http: TestClient) -> None:
    client = MlflowClient(http)
    client.log("loss", 3.0, step=0)
    client.end("KILLED")
    assert client.run()["state"] == "interrupted"
    client.post("runs/update", run_id=client.run_id, status="RUNNING")
    assert (client.run()["state"], client.run()["finished_at"]) == ("running", None)
    client.log("loss", 3.0, step=1)
    client.end()
    assert client.run()["steps_consumed"] == 2


def test_a_run_that_is_continued_a_day_after_its_end_is_neither_stalled_nor_archived(
    http: TestClient, sqlite_engine: sa.Engine, clock: Clock
) -> None:
    client, day = MlflowClient(http), 86_400.0
    client.log_rows(0, {"loss": [3.0] * 100})
    client.end("KILLED")
    assert http.patch(f"{API}/runs/{client.run_id}", json={"archived": True}).status_code == 200
    with writing(sqlite_engine) as session:
        session.execute(sa.update(RunStatus).values(expected_by=NOW + 2 * day))
    clock.now += day
    client.post("runs/update", run_id=client.run_id, status="RUNNING")
    assert client.run()["archived_at"] is None
    with reading(sqlite_engine) as session:
        status = session.scalars(sa.select(RunStatus)).one()
        assert (status.last_step_at, status.stall_after, status.expected_by) == (NOW + day, None, None)
    client.log_rows(100, {"loss": [3.0] * 50}, at=day)
    with reading(sqlite_engine) as session:
        status = session.scalars(sa.select(RunStatus)).one()
        assert status.stall_after is not None
        assert status.stall_after < 900.0  # a day between two steps would be usual


def test_params_and_tags_are_the_configuration_without_secrets(http: TestClient) -> None:
    client = MlflowClient(
        http, run_name="warm", tags=[{"key": "mlflow.source.name", "value": "train.py --token=secret"}]
    )
    client.post("runs/log-parameter", run_id=client.run_id, key="lr", value="0.1")
    client.post("runs/log-batch", run_id=client.run_id, params=[{"key": "api_key", "value": "sk-0123456789"}])
    client.post("runs/set-tag", run_id=client.run_id, key="team", value="blue")
    run = client.run()
    assert run["name"] == "warm"
    assert run["project"] == "Default"
    assert run["command"] == "train.py --token=***"
    assert {key: run["config"][key] for key in ("lr", "api_key")} == {"lr": "0.1", "api_key": "***"}
    assert run["config"]["tags"]["team"] == "blue"
    assert "secret" not in str(client.shown())
    client.post("runs/delete-tag", run_id=client.run_id, key="team")
    assert "team" not in client.run()["config"]["tags"]


def test_a_param_keeps_its_value_and_nothing_of_the_request_is_stored(http: TestClient) -> None:
    client = MlflowClient(http)
    client.post("runs/log-parameter", run_id=client.run_id, key="lr", value="0.1")
    client.post("runs/log-parameter", run_id=client.run_id, key="lr", value="0.1")
    params = [{"key": "lr", "value": "0.2"}]
    metrics = [{"key": "loss", "value": 1.0, "timestamp": 0, "step": 0}]
    refused = client.post("runs/log-batch", answered=400, run_id=client.run_id, params=params, metrics=metrics)
    assert refused["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "'lr' is '0.1' already" in refused["message"]
    assert client.shown()["data"]["metrics"] == []


def test_more_segments_than_a_run_may_have_are_refused_for_good(sqlite_engine: sa.Engine) -> None:
    with collector(sqlite_engine, max_segments=1) as http:
        client = MlflowClient(http)
        client.log("loss", 1.0, step=5)
        refused = client.log("loss", 1.0, step=4, at=9, answered=400)  # 429 would be repeated for minutes
        assert "LOSSGUARD_MAX_SEGMENTS" in refused["message"]
        client.end()
        assert steps(client, "loss") == {5: (1.0,)}


def test_measurements_of_the_machine_join_the_step_that_the_run_is_at(http: TestClient) -> None:
    client = MlflowClient(http)
    for step in range(0, 100, 10):
        client.log("loss", 3.0, step=step)
    client.log("system/cpu_utilization_percentage", 50.0, step=400)  # counts samples
    for step in range(100, 200, 10):
        client.log("loss", 3.0, step=step)
    client.end()
    stored = steps(client, "loss", "system/cpu_utilization_percentage")
    assert list(stored) == list(range(0, 200, 10))
    assert stored[90] == (3.0, 50.0)


def test_a_run_of_the_sdk_is_none_of_mlflow(http: TestClient) -> None:
    http.post(f"{API}/runs", json={"id": "r1", "project": "gpt", "started_at": NOW})
    body = {"run_id": "r1", "key": "loss", "value": 1.0, "timestamp": 0, "step": 0}
    answer = http.post(f"{MLFLOW_API}/runs/log-metric", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_the_arguments_of_hugging_face_say_how_the_rows_are_made(http: TestClient) -> None:
    client = MlflowClient(http)
    params = {"logging_steps": "10", "logging_nan_inf_filter": "True", "logging_strategy": "steps"}
    pairs = [{"key": key, "value": value} for key, value in params.items()]
    client.post("runs/log-batch", run_id=client.run_id, params=pairs)
    client.log("loss", 3.0, step=10)
    client.log("loss", 3.0, step=20)
    client.end()
    (event,) = client.run()["events"]
    assert (event["kind"], event["step"]) == ("source", 10)
    assert event["details"] | {"stride": 10, "averaged": True, "nan_filtered": True} == event["details"]


def test_a_loss_that_is_logged_every_tenth_step_is_recognised_once(http: TestClient) -> None:
    client = MlflowClient(http)
    for first in range(0, 3000, 1000):
        times = range(first, first + 1000, 10)
        metrics = [{"key": "loss", "value": 3.0 + step % 7 / 100, "timestamp": step, "step": step} for step in times]
        client.post("runs/log-batch", run_id=client.run_id, metrics=metrics)
    client.end()
    (event,) = client.run()["events"]
    assert (event["kind"], event["details"]["stride"]) == ("source", 10)


def test_a_final_loss_that_is_logged_without_a_step_is_no_rewind(http_on_both: TestClient) -> None:
    client = MlflowClient(http_on_both)
    client.log_rows(0, {"loss": noise(3, 100)})
    client.log("loss", 2.5, step=0, at=500)
    client.end()
    assert len(client.run()["segments"]) == 1
    stored = steps(client, "loss", "logged/loss")
    assert len(stored) == 100
    assert stored[99] == (noise(3, 100)[99], 2.5)
    assert stored[0] == (noise(3, 100)[0], None)


def test_a_loop_that_begins_anew_at_step_0_is_a_rewind(http: TestClient) -> None:
    client = MlflowClient(http)
    client.log_rows(0, {"loss": noise(3, 100), "lr": [0.1] * 100})
    for step in range(3):
        client.log("lr", 0.1, step=step, at=500 + step)
        client.log("loss", 2.5, step=step, at=500 + step)
    client.end()
    assert [segment["fork_step"] for segment in client.run()["segments"]] == [0, 0]
    assert client.run()["steps_effective"] == 3
    assert client.run()["newest_step"]["metrics"]["loss"] == 2.5
    begun_anew = steps(client, "loss", "lr")
    assert [begun_anew[step] for step in range(3)] == [(2.5, 0.1)] * 3


@pytest.mark.parametrize("state", ["'7'", """'{"rows": []}'""", """'{"rows": {"rows": 1}, "latest": {"loss": 2}}'"""])
def test_a_run_whose_stored_state_is_damaged_goes_on_in_its_newest_segment(
    sqlite_engine: sa.Engine, state: str
) -> None:
    with collector(sqlite_engine) as http:
        client = MlflowClient(http)
        client.log_rows(0, {"loss": [3.0] * 100})
        client.log_rows(60, {"loss": [3.0] * 40}, at=200)
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE mlflow_runs SET state = {state}")
    with collector(sqlite_engine) as http:
        client.http = http
        client.log_rows(100, {"loss": [3.0] * 20}, at=300)
        client.log_rows(90, {"loss": [3.0] * 5}, at=400)
        client.end()
        segments = [(each["fork_step"], each["last_step"]) for each in client.run()["segments"]]
    assert segments == [(0, 99), (60, 119), (90, 94)]
