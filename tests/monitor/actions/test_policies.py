"""The policy of all runs, of a project and of a run: who follows which value, and what is refused."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Order
from db.records import policies
from db.records.access import Scope
from db.store.engine import reading, writing
from lossguard.vocabulary.protocol import API, CAN_ROLL_BACK, MAX_PERSON, PERSON_HEADER
from lossguard.vocabulary.states import Layer
from monitor.actions.policies import set_default, set_of_run
from monitor.ingestion import runs
from monitor.ingestion.lease import Claim
from monitor.problems import Problem
from monitor.schemas import RunIn
from tests.monitor.client import NOW, TestClient, Trainer
from tests.monitor.scenarios import CHECKPOINTS, noise, train_until_nan
from tests.monitor.tokens import TokenClient, create_token


def put(http: TestClient, path: str, **fields: Any) -> dict[str, Any]:
    answer = http.put(f"{API}{path}", json=fields)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def test_a_value_says_where_a_request_that_sets_it_names_it(http: TestClient) -> None:
    parts = {each["name"]: each["part"] for each in http.get(f"{API}/policy").json()["values"]}
    assert (parts["mode"], parts["false_alarms_per_10k"]) == ("policy", "detection")


def mode_of(trainer: Trainer) -> tuple[str, str]:
    """The mode of a run, and where it is set."""
    (mode,) = (each for each in trainer.get("/policy")["values"] if each["name"] == "mode")
    return mode["value"], mode["from"]


def test_the_run_wins_over_the_project_and_the_project_over_the_collector(http: TestClient) -> None:
    trainer = Trainer(http)
    assert mode_of(trainer) == ("auto", "default")
    put(http, "/policy", mode="observe")
    assert mode_of(trainer) == ("observe", "collector")
    put(http, "/policy?project=gpt", mode="approve")
    assert mode_of(trainer) == ("approve", "project")
    put(http, "/runs/r1/policy", mode="auto")
    assert mode_of(trainer) == ("auto", "run")
    put(http, "/runs/r1/policy", mode=None)
    put(http, "/policy?project=gpt", mode=None)
    assert mode_of(trainer) == ("observe", "collector")
    assert mode_of(Trainer(http, "r2", project="other")) == ("observe", "collector")


def test_a_running_run_follows_a_changed_default_with_its_next_report(http: TestClient) -> None:
    trainer = Trainer(http)
    segment, loss = trainer.open("a"), noise(1, 300)
    trainer.report(segment, range(300), {"loss": loss}, restorable_steps=CHECKPOINTS)
    put(http, "/policy?project=gpt", mode="observe")
    assert trainer.report(segment, [300], {"loss": [float("nan")]})["orders"] == []
    assert trainer.get()["policy"]["mode"] == "observe"
    assert len(trainer.get("/incidents")) == 1


def test_a_changed_sensitivity_of_the_project_keeps_what_the_detection_has_learnt(http: TestClient) -> None:
    trainer = Trainer(http)
    segment, loss = trainer.open("a"), noise(1, 310)
    trainer.report(segment, range(300), {"loss": loss[:300]}, restorable_steps=CHECKPOINTS)
    put(http, "/policy?project=gpt", detection={"false_alarms_per_10k": 0.25})
    trainer.report(segment, range(300, 309), {"loss": loss[300:309]})
    assert trainer.get()["policy"]["detection"] == {"false_alarms_per_10k": 0.25}
    assert trainer.report(segment, [309], {"loss": [float("nan")]})["orders"] != []


def test_a_run_that_has_ended_keeps_the_policy_that_it_had(http: TestClient) -> None:
    trainer = Trainer(http)
    put(http, "/policy", mode="approve")
    trainer.report(trainer.open("a"), [0], {"loss": [1.0]})
    http.post(f"{API}/runs/r1/finish", json={"state": "finished", "at": 1.0})
    put(http, "/policy", mode="observe")
    assert trainer.get()["policy"]["mode"] == "approve"
    assert mode_of(trainer) == ("approve", "default")
    trainer.report(0, [1], {"loss": [1.0]})  # what was still in the spool
    assert trainer.get()["policy"]["mode"] == "approve"
    assert put(http, "/runs/r1/policy", patience=20)["mode"] == "observe"


def test_the_longest_name_of_an_author_fits(http: TestClient, sqlite_engine: sa.Engine) -> None:
    trainer = Trainer(http, capabilities=[CAN_ROLL_BACK])
    trainer.report(trainer.open("a"), [0, 1], {"loss": [1.0, 1.0]}, restorable_steps=[0])
    token = create_token(sqlite_engine, "t" * 128, Scope.READ, Scope.OPERATE)
    headers = {"authorization": f"Bearer {token}", PERSON_HEADER: "p" * MAX_PERSON}
    for method, path, body in (
        ("PUT", "/policy", {"mode": "approve"}),
        ("PUT", "/runs/r1/policy", {"mode": "observe"}),
        ("POST", "/runs/r1/rollback", {"reason": "by hand"}),
    ):
        answer = http.request(method, f"{API}{path}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
    with reading(sqlite_engine) as session:
        assert session.scalars(sa.select(Order.approved_by)).one() == f"{'p' * MAX_PERSON} (token {'t' * 128})"


def test_the_first_run_of_a_project_starts_as_the_collector_says_and_the_next_one_does_not(http: TestClient) -> None:
    put(http, "/policy", first_run_mode="observe")
    first = Trainer(http)
    assert train_until_nan(first)["orders"] == []
    assert mode_of(first) == ("observe", "run")
    assert mode_of(Trainer(http, "r2")) == ("auto", "default")
    assert mode_of(Trainer(http, "r3", project="new", policy={"mode": "approve"})) == ("approve", "run")


def test_every_change_is_in_the_audit_trail(http: TestClient) -> None:
    Trainer(http, policy={"patience": 20})
    put(http, "/policy?project=gpt", mode="approve")
    put(http, "/runs/r1/policy", mode=None)
    entries = [(each["action"], each["run"], each["details"]) for each in http.get(f"{API}/audit").json()]
    assert entries == [
        ("policy", "r1", {"mode": None}),
        ("policy", None, {"layer": "project", "project": "gpt", "changes": {"mode": "approve"}}),
        ("policy", "r1", {"patience": 20}),
    ]


@pytest.mark.parametrize(
    ("path", "fields", "detail"),
    [
        ("/policy", {"depht": 3}, "unknown policy settings: depht"),
        ("/policy?project=gpt", {"first_run_mode": "observe"}, "first_run_mode is a value of the collector"),
        ("/policy", {"skip_min": 400}, "run r1: skip_max (300) must not be below skip_min (400)"),
    ],
)
def test_a_default_that_would_leave_anybody_without_a_policy_is_refused(
    http: TestClient, path: str, fields: dict[str, Any], detail: str
) -> None:
    trainer = Trainer(http)
    put(http, "/runs/r1/policy", skip_max=300)
    before = trainer.get("/policy")
    answer = http.put(f"{API}{path}", json=fields)
    assert (answer.status_code, detail in answer.json()["detail"]) == (422, True)
    assert trainer.get("/policy") == before


def test_a_token_sets_the_policy_of_what_it_covers_alone(http: TestClient, sqlite_engine: sa.Engine) -> None:
    Trainer(http)
    scopes = (Scope.READ, Scope.OPERATE)
    of_project = TokenClient(http, create_token(sqlite_engine, "gpt team", *scopes, project="gpt"))
    of_run = TokenClient(http, create_token(sqlite_engine, "one run", *scopes, run="r1"))
    reader = TokenClient(http, create_token(sqlite_engine, "viewer", Scope.READ))
    body = {"mode": "approve"}
    assert of_project.status("PUT", "/policy?project=gpt", body) == 200
    assert of_project.status("PUT", "/policy?project=other", body) == 403
    assert of_project.status("PUT", "/policy", body) == 403
    assert of_run.status("PUT", "/runs/r1/policy", body) == 200
    assert of_run.status("PUT", "/policy?project=gpt", body) == 403
    assert reader.status("GET", "/policy", None) == 200
    assert reader.status("PUT", "/runs/r1/policy", body) == 403


def at_once(engine: sa.Engine, first: Callable[[Session], object], second: Callable[[Session], Any]) -> Any:
    """What the second change returns, which has begun before the first is committed."""

    def change() -> Any:
        with writing(engine) as session:
            return second(session)

    with ThreadPoolExecutor(1) as pool:
        with writing(engine) as session:
            first(session)
            other = pool.submit(change)
            wait([other], timeout=0.2)
        return other.result()


def set_project(**fields: Any) -> Callable[[Session], object]:
    return lambda session: set_default(session, "gpt", fields, who="bob", now=NOW)


def set_run(**fields: Any) -> Callable[[Session], object]:
    return lambda session: set_of_run(session, "r1", fields, who="ada", now=NOW)


def register(session: Session) -> runs.Registration:
    """A loop with a policy of its own."""
    spec = RunIn(id="r1", project="gpt", started_at=NOW, policy={"skip_max": 300})
    return runs.register(session, spec, claim=Claim(writer=None, now=NOW, seconds=20.0), who="loop")


def test_two_changes_at_once_are_both_kept(engine: sa.Engine) -> None:
    at_once(engine, set_project(mode="observe"), set_project(patience=20))
    with reading(engine) as session:
        assert policies.layers(session, project="gpt") == {Layer.PROJECT: {"mode": "observe", "patience": 20}}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (set_run(skip_max=300), set_project(skip_min=400)),
        (set_project(skip_min=400), set_run(skip_max=300)),
        (register, set_project(skip_min=400)),
    ],
)
def test_of_two_changes_that_are_valid_alone_and_invalid_together_the_second_is_refused(
    http_on_both: TestClient, engine: sa.Engine, first: Callable[[Session], object], second: Callable[[Session], object]
) -> None:
    trainer = Trainer(http_on_both)
    with pytest.raises(Problem, match="must not be below skip_min"):
        at_once(engine, first, second)
    assert mode_of(trainer) == ("auto", "default")


def test_the_policy_of_a_loop_that_an_operator_has_just_made_invalid_is_a_problem_of_its_registration(
    http_on_both: TestClient, engine: sa.Engine
) -> None:
    Trainer(http_on_both)
    assert "must not be below skip_min" in str(at_once(engine, set_project(skip_min=400), register).policy_problem)


def test_a_layer_that_cannot_be_read_keeps_the_last_valid_policy_and_says_so(
    http: TestClient, sqlite_engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(http)
    put(http, "/runs/r1/policy", mode="approve", patience=7)
    with writing(sqlite_engine) as session:
        policies.set_fields(session, key=policies.COLLECTOR, fields={"courage": 11}, who="a newer one", now=NOW)
        session.execute(sa.text("UPDATE runs SET revision = revision + 1"))
    assert train_until_nan(trainer)["orders"] == []
    assert [one["state"] for one in trainer.get()["interventions"]] == ["proposed"], "it does not only observe"
    assert mode_of(trainer)[0] == "approve"
    assert [one["details"] for one in trainer.get()["events"] if one["kind"] == "policy_unreadable"] == [
        {"why": "unknown policy settings: courage", "mode": "approve"}
    ]
    assert sum("goes on with mode approve" in record.message for record in caplog.records) == 1


def test_a_policy_of_a_release_that_knows_more_is_shown_as_it_is_followed(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    trainer = Trainer(http)
    with writing(sqlite_engine) as session:
        policies.set_fields(session, key=policies.COLLECTOR, fields={"mode": "dream"}, who="ada", now=NOW)
    assert mode_of(trainer) == ("observe", "default")


def test_the_policy_of_a_run_that_does_not_exist_is_404(http: TestClient) -> None:
    assert http.get(f"{API}/runs/nobody/policy").status_code == 404


def test_a_misspelt_parameter_does_not_change_the_policy_of_all(http: TestClient) -> None:
    answer = http.put(f"{API}/policy?projekt=gpt", json={"mode": "observe"})
    assert (answer.status_code, "projekt" in answer.text) == (422, True)
    assert http.get(f"{API}/policy").json()["layers"]["collector"] == {}
