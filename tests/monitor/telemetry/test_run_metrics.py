"""What Prometheus scrapes: names, values, and which runs are there."""

import math
import re
import subprocess

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from db.goodput.accounting import TimeCause
from db.records import policies
from db.store.engine import writing
from lossguard.vocabulary.protocol import API, IMPORTED, SPOOL_HEADER
from monitor.api.auth import MAX_FAILED_ATTEMPTS, FailedAttempts
from monitor.ingestion.run_state.run_status import PEAK_WINDOW_SECONDS
from monitor.settings import Settings
from monitor.telemetry.run_metrics import INCIDENT_LINGER_SECONDS
from tests.monitor.client import NOW, Clock, TestClient, Trainer, collector, writer
from tests.monitor.scenarios import pause_event
from tests.monitor.verdict import VERDICT


def scrape(http: TestClient) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name -> label values (by the labels' names, in order) -> value."""
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            samples.setdefault(sample.name, {})[labels] = sample.value
    return samples


RUN = ("gpt", "r1")


@pytest.mark.needs("prometheus")
def test_promtool_accepts_the_names_and_help_texts(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(20), {"loss": [2.0] * 19 + [float("nan")], "tokens": list(range(20))})
    trainer.report(0, [], {}, events=[pause_event(20, 60.0)])
    text = http.get("/metrics").text
    assert "lossguard_incident_onset_step{" in text
    assert re.search(r"lossguard_incident_lasting_probability\{.*\} 1\.0\n", text)
    assert re.search(r'lossguard_verdict\{verdict="diverged",.*\} 1\.0\n', text)
    assert "lossguard_expected_by_timestamp_seconds{" in text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_steps_that_arrive_behind_their_successors_do_not_move_the_run_back(http: TestClient) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    trainer.report(segment, [0, 1, 2], {"loss": [4.0, 3.0, 2.0]})
    trainer.report(segment, range(8, 12), {"loss": [1.0] * 4})
    before = scrape(http)
    assert trainer.report(segment, [3, 4], {"loss": [9.0, 9.0]})["accepted"] == 2
    after = scrape(http)
    for name in ("lossguard_step", "lossguard_loss_nats", "lossguard_step_seconds"):
        assert after[name][RUN] == before[name][RUN], name
    assert after["lossguard_step"][RUN] == 11


def test_two_scrapers_see_the_same_spike_and_do_not_steal_it_from_each_other(http: TestClient, clock: Clock) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    trainer.report(segment, range(3), {"loss": [2.0, 9.0, 2.0]})
    for seconds in (5.0, 10.0, 15.0):
        clock.now = NOW + seconds
        assert [scrape(http)["lossguard_peak_loss_nats"][RUN] for _ in range(2)] == [9.0, 9.0]
        assert scrape(http)["lossguard_loss_nats"][RUN] == 2.0
    clock.now = NOW + 2 * PEAK_WINDOW_SECONDS
    assert "lossguard_peak_loss_nats" not in scrape(http)


def test_two_collectors_of_one_store_export_the_same_for_a_run(http: TestClient, sqlite_engine: sa.Engine) -> None:
    with collector(sqlite_engine) as other:
        trainer = Trainer(http)
        trainer.report(trainer.open("a"), range(3), {"loss": [2.0, 9.0, 2.0]})
        here, there = scrape(http), scrape(other)
        assert here["lossguard_peak_loss_nats"] == there["lossguard_peak_loss_nats"] == {RUN: 9.0}
        assert here["lossguard_reports_total"][("stored",)] == 1.0
        assert there["lossguard_reports_total"][("stored",)] == 0.0


def test_the_time_of_a_run_is_a_gauge_by_cause(http: TestClient, clock: Clock) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(1, 11), {"loss": [2.0] * 10})
    clock.now = NOW + 11.0
    found = scrape(http)["lossguard_run_time_seconds"]
    assert found["training", *RUN] == 11.0
    assert sum(found.values()) == 11.0
    assert {cause for cause, *_ in found} == set(TimeCause)


def test_the_age_of_the_time_of_a_run_is_a_gauge(http: TestClient, clock: Clock) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(1, 11), {"loss": [2.0] * 10})
    ages = []
    for seconds in (11.0, 31.0, 41.0):
        clock.now = NOW + seconds
        ages.append(scrape(http)["lossguard_run_time_age_seconds"][RUN])
    assert ages == [0.0, 20.0, 0.0]


def test_the_metrics_of_a_run_disappear_when_it_ends_and_return_when_it_resumes(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(3), {"loss": [2.0] * 3})
    assert scrape(http)["lossguard_step"] == {RUN: 2.0}
    http.post(f"{API}/runs/r1/finish", json={"state": "finished", "at": NOW})
    assert not any(RUN[1] in labels for values in scrape(http).values() for labels in values)
    Trainer(http)
    assert scrape(http)["lossguard_step"] == {RUN: 2.0}


def test_an_incident_that_was_short_is_shown_for_a_while_after_its_end(http: TestClient, clock: Clock) -> None:
    end_incident(http, clock, seconds=1.0)
    assert scrape(http)["lossguard_incident_onset_step"] == {("nonfinite", *RUN, "closed"): 3.0}
    clock.now += INCIDENT_LINGER_SECONDS + 1
    assert "lossguard_incident_onset_step" not in scrape(http)


def test_an_incident_that_ends_when_the_run_resumes_after_hours_pages_nobody_again(
    http: TestClient, clock: Clock
) -> None:
    end_incident(http, clock, seconds=3600.0)
    assert "lossguard_incident_onset_step" not in scrape(http)


def test_the_verdict_of_a_replay_about_an_incident_of_the_past_pages_nobody_again(
    http: TestClient, clock: Clock
) -> None:
    end_incident(http, clock, seconds=600.0)
    clock.now += 3600
    assert http.put(f"{API}/runs/r1/incidents/1/verdict", json=VERDICT).status_code == 200
    assert "lossguard_incident_onset_step" not in scrape(http)


def end_incident(http: TestClient, clock: Clock, *, seconds: float) -> None:
    """Report a NaN, which nobody treats, stop the run, and resume it before the NaN after some seconds."""
    trainer = Trainer(http, capabilities=[])
    trainer.report(trainer.open("a"), range(4), {"loss": [2.0, 2.0, 2.0, math.nan]})
    assert scrape(http)["lossguard_incident_onset_step"] == {("nonfinite", *RUN, "open"): 3.0}
    http.post(f"{API}/runs/r1/finish", json={"state": "interrupted", "at": NOW})
    clock.now += seconds
    Trainer(http, capabilities=[]).open("b", 2, "resume")


def test_a_limited_number_of_runs_is_shown_and_the_rest_is_counted(sqlite_engine: sa.Engine, clock: Clock) -> None:
    with collector(sqlite_engine, clock=clock, max_runs_in_metrics=2) as http:
        for number in range(3):
            clock.now = NOW + number
            Trainer(http, f"r{number}")
        samples = scrape(http)
    assert set(samples["lossguard_last_report_timestamp_seconds"]) == {("gpt", "r1"), ("gpt", "r2")}
    assert samples["lossguard_running_runs"] == {(): 3.0}
    assert samples["lossguard_running_runs_left_out"] == {(): 1.0}


def test_running_runs_whose_policy_layers_cannot_be_read_are_counted_until_that_is_mended(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    Trainer(http), Trainer(http, "other", project="other")
    assert scrape(http)["lossguard_policies_unreadable"] == {(): 0.0}
    with writing(sqlite_engine) as session:
        policies.set_fields(session, key=policies.project_key("gpt"), fields={"courage": 11}, who="newer", now=NOW)
    assert scrape(http)["lossguard_policies_unreadable"] == {(): 1.0}
    mended = http.put(f"{API}/policy?project=gpt", json={"mode": "approve", "courage": None})
    assert mended.status_code == 200, mended.text
    assert scrape(http)["lossguard_policies_unreadable"] == {(): 0.0}


def test_a_heartbeat_is_no_step(http: TestClient, clock: Clock) -> None:
    """A loop that hangs still has a sender that lives."""
    trainer = Trainer(http)
    segment = trainer.open("a")
    trainer.report(segment, [0], {"loss": [2.0]})
    clock.now = NOW + 100
    trainer.report(segment, [], {})
    samples = scrape(http)
    assert samples["lossguard_last_report_timestamp_seconds"] == {RUN: NOW + 100}
    assert samples["lossguard_last_step_timestamp_seconds"] == {RUN: NOW}


def test_an_announced_pause_lasts_until_the_next_step(http: TestClient) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    trainer.report(segment, range(3), {"loss": [2.0] * 3}, events=[pause_event(3, 600)])
    assert scrape(http)["lossguard_expected_by_timestamp_seconds"] == {RUN: NOW + 600}
    trainer.report(segment, [], {})
    assert "lossguard_expected_by_timestamp_seconds" in scrape(http)
    trainer.report(segment, [3], {"loss": [2.0]})
    assert "lossguard_expected_by_timestamp_seconds" not in scrape(http)
    trainer.report(segment, [4, 5], {"loss": [2.0] * 2}, events=[pause_event(5, 600)])
    assert "lossguard_expected_by_timestamp_seconds" not in scrape(http), "step 5 came in the same report"
    assert trainer.get()["events"] == [], "a pause is no change of the run: nothing re-baselines"


@pytest.mark.parametrize("seconds", [0, -1, "soon", None, True, 1e9])
def test_a_pause_that_is_no_number_of_seconds_is_refused(http: TestClient, seconds: object) -> None:
    trainer = Trainer(http)
    body = {"segment": trainer.open("a"), "steps": [], "events": [pause_event(0, seconds)]}
    answer = http.post(f"{API}/runs/r1/reports", json=body)
    assert answer.status_code == 422
    assert answer.json()["where"] == ["events", 0, "details", "next_report_in"]


def test_a_resumed_run_does_not_look_stalled(http: TestClient, clock: Clock) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [0], {"loss": [2.0]})
    clock.now = NOW + 86_400
    Trainer(http)
    assert scrape(http)["lossguard_last_step_timestamp_seconds"] == {RUN: NOW + 86_400}


def test_late_reports_of_an_abandoned_branch_do_not_change_the_status(http: TestClient) -> None:
    trainer = Trainer(http)
    old = trainer.open("a")
    trainer.report(old, range(10), {"loss": [2.0] * 10})
    new = trainer.open("b", 5, "rewind")
    trainer.report(new, [5], {"loss": [3.0]})
    trainer.report(old, [10], {"loss": [99.0]})
    samples = scrape(http)
    assert samples["lossguard_loss_nats"] == {RUN: 3.0}
    assert samples["lossguard_peak_loss_nats"] == {RUN: 3.0}
    assert samples["lossguard_step"] == {RUN: 5.0}
    assert samples["lossguard_steps_lost_total"] == {RUN: 6.0}


def test_the_size_of_the_spool_is_shown_as_the_trainer_reports_it(http: TestClient) -> None:
    trainer = Trainer(http)
    body = {"segment": trainer.open("a"), "steps": []}
    http.post(f"{API}/runs/r1/reports", json=body, headers={SPOOL_HEADER: "12345"})
    assert scrape(http)["lossguard_spool_bytes"] == {RUN: 12345.0}


def test_reports_are_counted_by_outcome(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [0], {"loss": [2.0]})
    assert http.post(f"{API}/runs/r1/reports", json={"segment": 7}).status_code == 422
    samples = scrape(http)
    outcomes = {outcome[0]: count for outcome, count in samples["lossguard_reports_total"].items()}
    assert outcomes == {"stored": 1.0, "refused": 1.0, "busy": 0.0, "failed": 0.0}
    assert samples["lossguard_report_seconds_count"] == {(): 2.0}
    assert samples["lossguard_database_transaction_seconds_count"][()] >= 3.0


def test_a_trainer_whose_token_is_wrong_is_counted_as_refused_before_and_after_it_is_held_off(
    sqlite_engine: sa.Engine,
) -> None:
    http = collector(sqlite_engine, token="secret-of-16-chr")
    http.app.state.collector.failed_attempts = FailedAttempts(delay=0)  # type: ignore[attr-defined]
    wrong, right = ({"authorization": f"Bearer {token}"} for token in ("lg_guess", "secret-of-16-chr"))
    tried = ["runs", "runs/r1/segments", "runs/r1/lease", "runs/r1/reports"] * 6
    statuses = [http.post(f"{API}/{path}", json={}, headers=wrong).status_code for path in tried]
    assert statuses == [401] * MAX_FAILED_ATTEMPTS + [429] * (len(tried) - MAX_FAILED_ATTEMPTS)
    http.headers.update(right)
    http.app.state.collector.failed_attempts = FailedAttempts(delay=0)  # type: ignore[attr-defined]
    outcomes = {outcome: count for (outcome,), count in scrape(http)["lossguard_reports_total"].items()}
    assert outcomes == {"stored": 0.0, "refused": 24.0, "busy": 0.0, "failed": 0.0}


def test_what_mlflow_clients_log_is_counted_by_outcome(http: TestClient) -> None:
    body = {"run_id": "gone", "key": "loss", "value": 2.0, "timestamp": 1, "step": 0}
    assert http.post("/api/2.0/mlflow/runs/log-metric", json=body).status_code == 404
    assert scrape(http)["lossguard_reports_total"]["refused",] == 1.0


def test_every_counter_of_a_run_starts_at_0_so_that_the_first_increase_is_seen(http: TestClient) -> None:
    Trainer(http)
    samples = scrape(http)
    assert set(samples["lossguard_incidents_closed_total"].values()) == {0.0}
    assert set(samples["lossguard_interventions_total"].values()) == {0.0}
    assert samples["lossguard_nonfinite_steps_total"] == {RUN: 0.0}


def test_a_database_that_does_not_answer_is_a_metric_and_not_a_failed_scrape(
    http: TestClient, sqlite_engine: sa.Engine
) -> None:
    Trainer(http)
    assert scrape(http)["lossguard_database_up"] == {(): 1.0}
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE pulses RENAME TO gone")
    samples = scrape(http)
    assert samples["lossguard_database_up"] == {(): 0.0}
    assert "lossguard_reports_total" in samples


def test_a_run_of_the_past_alerts_nobody_while_it_is_imported(http: TestClient) -> None:
    """Its incidents are there for whoever looks, and its gauges, on which the alerts are, are not."""
    trainer = Trainer(http, capabilities=[IMPORTED])
    trainer.report(trainer.open("a"), range(300), {"loss": [2.0 + step % 5 / 100 for step in range(299)] + [math.nan]})
    assert [incident["kind"] for incident in http.get(f"{API}/runs/r1/incidents").json()] == ["nonfinite"]
    samples = scrape(http)
    assert samples["lossguard_running_runs"] == {(): 0}
    assert not any(RUN[1] in labels for each in samples.values() for labels in each)


def test_a_state_that_is_never_restored_is_shown_until_the_next_good_one_or_until_the_run_goes_back(
    http: TestClient,
) -> None:
    def event(at: int, **details: object) -> dict[str, object]:
        return {"key": f"e{at}", "step": at, "time": NOW, "kind": "checkpoint_uncertified", "details": details}

    def shown() -> dict[tuple[str, ...], float]:
        return scrape(http).get("lossguard_uncertified_checkpoint_step", {})

    trainer = Trainer(http)
    segment = trainer.open("a")
    trainer.report(segment, range(20), {"loss": [2.0] * 20}, restorable_steps=[0, 10])
    assert shown() == {}
    damaged = event(20, step=20, reason="model.weight holds NaN")
    trainer.report(segment, range(20, 25), {"loss": [2.0] * 5}, events=[damaged])
    assert shown() == {RUN: 20.0}
    trainer.report(segment, range(25, 30), {"loss": [2.0] * 5}, restorable_steps=[0, 10, 30])
    assert shown() == {}
    again = [event(40, step=40, reason="model.weight holds NaN"), event(41, step="x"), event(42)]
    again.append(event(43, step=10**400))
    trainer.report(segment, range(30, 45), {"loss": [2.0] * 15}, events=again)
    assert shown() == {RUN: 40.0}
    trainer.report(trainer.open("b", 30, "rewind"), range(30, 40), {"loss": [2.0] * 10})
    assert shown() == {}


def test_a_state_that_is_never_restored_is_shown_while_another_process_reports_beside_the_live_line(
    http: TestClient, clock: Clock
) -> None:
    def shown() -> dict[tuple[str, ...], float]:
        return scrape(http).get("lossguard_uncertified_checkpoint_step", {})

    first, other = (Trainer(http, writer=writer(folder)) for folder in "ab")
    damaged = {"key": "e", "step": 5, "time": NOW, "kind": "checkpoint_uncertified", "details": {"step": 5}}
    first.report(first.open("a"), range(5), {"loss": [2.0] * 5}, events=[damaged])
    beside = other.open("b", 3, "resume")
    other.report(beside, range(3, 6), {"loss": [2.0] * 3})
    assert shown() == {RUN: 5.0}
    assert scrape(http)["lossguard_steps_lost_total"] == {RUN: 0.0}
    clock.now += Settings().lease_seconds + 1.0
    other.report(beside, [6], {"loss": [2.0]})  # its line is the live one now
    assert shown() == {}


def test_that_checkpoints_cannot_be_saved_is_a_gauge(http: TestClient) -> None:
    Trainer(http)
    assert scrape(http)["lossguard_checkpoints_failing"] == {RUN: 0.0}
    Trainer(http, capabilities=["rollback", "no-checkpoint:[Errno 28] No space left on device"])
    assert scrape(http)["lossguard_checkpoints_failing"] == {RUN: 1.0}
