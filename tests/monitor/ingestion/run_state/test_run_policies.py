"""What a loop says of the policy counts until an operator sets it."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from db.files import imports
from db.records import policies
from db.store.engine import writing
from lossguard.vocabulary.protocol import API
from monitor.detection import Mode, Policy
from monitor.ingestion.run_state import run_policies
from tests.db.files.exported import write
from tests.db.seed import add_run, end_run, spoil
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import train_until_nan


def given(http: TestClient, policy: dict[str, Any] | None) -> dict[str, Any]:
    """The answer to a registration with this policy."""
    values: dict[str, Any] = {} if policy is None else {"policy": policy}
    answer: dict[str, Any] = Trainer(http, **values).registered.json()
    return answer


def test_a_loop_sets_the_policy_of_its_run_and_changes_it_when_it_is_started_again(http: TestClient) -> None:
    assert given(http, {"mode": "approve"})["policy"]["mode"] == "approve"
    assert train_until_nan(Trainer(http))["orders"] == []
    given(http, {"mode": "observe", "patience": 5})
    given(http, None)
    policy = {each["name"]: each["value"] for each in Trainer(http).get("/policy")["values"]}
    assert (policy["mode"], policy["patience"]) == ("observe", 5)


def test_what_an_operator_has_set_stays_when_the_loop_is_started_again(http: TestClient) -> None:
    given(http, {"mode": "approve"})
    http.put(f"{API}/runs/r1/policy", json={"mode": "observe"})
    given(http, {"mode": "auto"})
    assert Trainer(http).get("/policy")["layers"]["run"] == {"mode": "observe"}


def test_a_malformed_policy_is_named_and_the_run_only_observes_until_it_is_mended(http: TestClient) -> None:
    answer = given(http, {"mode": "auto", "depht": 3})
    assert answer["policy_problem"] == "unknown policy settings: depht"
    assert answer["policy"]["mode"] == "observe"
    assert "policy_problem" not in given(http, {"mode": "auto", "max_attempts": 3})
    assert Trainer(http).get("/policy")["layers"]["run"] == {"mode": "auto", "max_attempts": 3}


def import_with(engine: sa.Engine, policy: dict[str, Any], folder: Path) -> None:
    """Import the run "r1" from a file of a run with this policy."""
    with writing(engine) as session:
        end_run(session, add_run(session, "elsewhere", policy=policy))
    path = write(engine, "elsewhere", folder / "r1.parquet")
    with writing(engine) as session:
        imports.import_file(session, path=path, now=NOW, run_id="r1")


def test_the_policy_that_a_run_was_imported_with_counts(http: TestClient, sqlite_engine: sa.Engine) -> None:
    trainer = Trainer(http)
    spoil(sqlite_engine, "r1", {"policy": {"name": "palm", "mode": "approve"}})
    assert train_until_nan(trainer)["orders"] == []
    http.put(f"{API}/runs/r1/policy", json={"patience": 5})
    assert trainer.get("/policy")["layers"]["run"] == {"name": "palm", "mode": "approve", "patience": 5}


def test_the_policy_that_a_run_was_imported_with_counts_beside_that_of_the_collector(
    http: TestClient, sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    http.put(f"{API}/policy", json={"patience": 5})
    import_with(sqlite_engine, {"name": "palm", "mode": "observe"}, tmp_path)
    trainer = Trainer(http)
    assert train_until_nan(trainer)["orders"] == []
    policy = {each["name"]: each["value"] for each in trainer.get("/policy")["values"]}
    assert (policy["name"], policy["mode"], policy["patience"]) == ("palm", "observe", 5)
    assert trainer.get("/policy")["layers"]["run"] == {"name": "palm", "mode": "observe"}


def test_a_run_that_was_imported_in_mode_auto_observes_where_the_store_says_so(
    http: TestClient, sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    http.put(f"{API}/policy", json={"mode": "observe"})
    rule = Policy(mode=Mode.AUTO, patience=5).to_dict()
    import_with(sqlite_engine, rule, tmp_path)
    trainer = Trainer(http)
    assert train_until_nan(trainer)["orders"] == []
    policy = {each["name"]: each["value"] for each in trainer.get("/policy")["values"]}
    assert policy.items() >= (rule | {"mode": "observe"}).items()


def test_layers_that_this_release_cannot_read_only_observe(http: TestClient, sqlite_engine: sa.Engine) -> None:
    trainer = Trainer(http)
    with writing(sqlite_engine) as session:
        policies.set_fields(session, key=policies.COLLECTOR, fields={"courage": 11}, who="a newer one", now=1.0)
    assert train_until_nan(trainer)["orders"] == []
    assert trainer.get()["policy"]["mode"] == "observe"


@pytest.mark.parametrize("garbage", ["'[1]'", "'{'", "''", "7", "x'80'"])
def test_a_rule_that_cannot_be_read_lets_the_run_observe_and_says_so(
    http: TestClient, sqlite_engine: sa.Engine, garbage: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(http)
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE runs SET policy = {garbage}, revision = revision + 1")
    assert train_until_nan(trainer)["orders"] == []
    assert [one["kind"] for one in trainer.get("/incidents")] == ["nonfinite"]
    assert trainer.get()["interventions"] == []
    (event,) = [one for one in trainer.get()["events"] if one["kind"] == run_policies.UNREADABLE]
    assert event["details"]["mode"] == "observe"
    assert sum("cannot be read" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("garbage", ["'[1]'", "'{'", """'{"mode": "observe", "detection": 3}'"""])
def test_a_layer_that_is_damaged_is_no_default_and_an_operator_sets_it_anew(
    http: TestClient, sqlite_engine: sa.Engine, garbage: str
) -> None:
    trainer = Trainer(http, policy={"mode": "observe"})
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE policy_layers SET fields = {garbage}")
        connection.exec_driver_sql("UPDATE runs SET revision = revision + 1")
    assert train_until_nan(trainer)["orders"] == []
    assert trainer.get()["interventions"] == []
    answer = http.put(f"{API}/runs/r1/policy", json={"mode": "approve", "detection": None})
    assert (answer.status_code, answer.json()["mode"]) == (200, "approve"), answer.text
