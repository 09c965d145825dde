"""Alerts reach a webhook: real Prometheus and Alertmanager, and a real training run with an injected fault."""

import math
import signal
from pathlib import Path
from typing import Any

import pytest

import lossguard
from tests.deploy.hostile_names import AS_SLACK_SHOWS_IT, HOSTILE
from tests.deploy.stack import TOKEN, Stack, Webhook, webhook
from tests.fork_server import WarmProcesses
from tests.loop import small_settings
from tests.waiting import wait_for

pytestmark = pytest.mark.system

EXAMPLE = Path(__file__).parents[2] / "examples" / "first_page.py"
FAULT_STEP = 160
FAULT = f"random_targets@{FAULT_STEP}"


@pytest.mark.needs("prometheus")
@pytest.mark.needs("alertmanager")
def test_the_alert_of_an_injected_spike_names_run_step_and_link_and_resolves_after_the_verified_rollback(
    tmp_path: Path,
) -> None:
    with webhook() as receiver, WarmProcesses(tmp_path / "logs") as processes:
        stack = Stack(processes, tmp_path, receiver.url, seconds=1)
        command = ["-m", "trainer", "run", "--run-id", "r", "--steps", "20000", "--out", str(tmp_path / "out")]
        token = stack.secret("trainer_token")
        environment = {"LOSSGUARD_URL": stack.collector, "LOSSGUARD_TOKEN": token, "OMP_NUM_THREADS": "1"}
        trainer = processes.start("trainer", *command, *small_settings(), "--fault", FAULT, environment=environment)

        _, alert = wait_for(lambda: receiver.first("LossSpike", "firing"), seconds=90, what="the alert")
        (incident,) = stack.ask("/runs/r/incidents")
        assert incident["onset_step"] == FAULT_STEP
        assert alert["labels"] == {"alertname": "LossSpike", "severity": "warning", "run": "r", "project": "trainer"}
        assert alert["annotations"]["summary"] == f"Loss spike in run r of trainer at step {FAULT_STEP}"
        assert alert["annotations"]["link"] == "http://dash:8501/run?run=r"
        assert alert["annotations"]["runbook_url"] == "http://book/runbook.md#lossspike"

        wait_for(lambda: receiver.first("LossSpike", "resolved"), seconds=90, what="its resolution")
        assert [one["state"] for one in stack.ask("/runs/r")["interventions"]] == ["verified"]
        assert stack.ask("/runs/r")["state"] == "running", "the rollback resolved it, not the end of the run"
        assert {alert["labels"]["alertname"] for _, alert in receiver.received} == {"LossSpike"}, (
            "no other alert was sent"
        )
        trainer.send_signal(signal.SIGTERM)
        trainer.wait(60)


@pytest.mark.needs("prometheus")
@pytest.mark.needs("alertmanager")
def test_the_example_raises_an_alert_and_its_end_resolves_it(tmp_path: Path) -> None:
    with webhook() as receiver, WarmProcesses(tmp_path / "logs") as processes:
        stack = Stack(processes, tmp_path, receiver.url, seconds=1)
        environment = {"LOSSGUARD_URL": stack.collector, "LOSSGUARD_TOKEN": TOKEN, "LOSSGUARD_DIR": str(tmp_path)}
        processes.start("example", str(EXAMPLE), "--seconds", "8", environment=environment)
        _, alert = wait_for(lambda: receiver.first("NonFiniteLoss", "firing"), seconds=90, what="the alert")
        assert alert["labels"]["severity"] == "critical"
        assert alert["labels"]["project"] == "first-page"
        assert alert["annotations"]["summary"].endswith("at step 100")
        wait_for(lambda: receiver.first("NonFiniteLoss", "resolved"), seconds=90, what="its resolution")


@pytest.mark.needs("prometheus")
@pytest.mark.needs("alertmanager")
def test_a_run_of_a_project_with_a_hostile_name_alerts_with_that_name_as_plain_text(tmp_path: Path) -> None:
    with webhook() as receiver, WarmProcesses(tmp_path / "logs") as processes:
        stack = Stack(processes, tmp_path, receiver.url, seconds=1)
        where = {"mode": "online", "url": stack.collector, "token": TOKEN, "directory": str(tmp_path / "run")}
        run = lossguard.init(HOSTILE, run_id="r", **where)  # type: ignore[arg-type]
        for step in range(5):
            run.log(step, loss=math.nan)
        _, alert = wait_for(lambda: receiver.first("NonFiniteLoss", "firing"), seconds=90, what="the alert")
        wait_for(lambda: slack_messages(receiver), seconds=90, what="the message to Slack")
        run.finish()
    assert alert["labels"]["project"] == HOSTILE
    assert alert["annotations"]["summary"] == f"NaN or infinity in run r of {HOSTILE} at step 0"
    assert alert["annotations"]["link"] == "http://dash:8501/run?run=r"
    message = slack_messages(receiver)[0]
    assert message["title"].startswith(f"{AS_SLACK_SHOWS_IT} r: firing")
    assert f"NaN or infinity in run r of {AS_SLACK_SHOWS_IT} at step 0" in message["text"]
    assert not set("<>`") & set(message["title"] + message["text"])


def slack_messages(receiver: Webhook) -> list[dict[str, Any]]:
    return [message["attachments"][0] for message in receiver.messages if "attachments" in message]
