"""Somebody is paged: real Prometheus and Alertmanager, a real training run with a planted fault, and a webhook."""

import signal
from pathlib import Path

import pytest

from demo.processes import Processes
from tests.deploy.stack import TOKEN, Stack, pager
from tests.loop import small_settings
from tests.waiting import wait_for

EXAMPLE = Path(__file__).parents[2] / "examples" / "first_page.py"
STRIKES = 160
FAULT = f"random_targets@{STRIKES}"


@pytest.mark.slow
@pytest.mark.needs("prometheus")
@pytest.mark.needs("alertmanager")
def test_a_planted_spike_pages_with_run_step_and_link_and_resolves_once_the_rollback_is_verified(
    tmp_path: Path,
) -> None:
    with pager() as paged, Processes(tmp_path / "logs") as processes:
        stack = Stack(processes, tmp_path, paged.url, seconds=1)
        command = ["-m", "trainer", "run", "--run-id", "r", "--steps", "20000", "--out", str(tmp_path / "out")]
        environment = {"LOSSGUARD_URL": stack.collector, "LOSSGUARD_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        trainer = processes.start("trainer", *command, *small_settings(), "--fault", FAULT, environment=environment)

        _, page = wait_for(lambda: paged.first("LossSpike", "firing"), seconds=90, what="the page")
        (incident,) = stack.ask("/runs/r/incidents")
        assert incident["onset_step"] == STRIKES
        assert page["labels"] == {"alertname": "LossSpike", "severity": "warning", "run": "r", "project": "trainer"}
        assert page["annotations"]["summary"] == f"Loss spike in run r of trainer at step {STRIKES}"
        assert page["annotations"]["link"] == "http://dash:8501/run?run=r"
        assert page["annotations"]["runbook_url"] == "http://book/runbook.md#lossspike"

        wait_for(lambda: paged.first("LossSpike", "resolved"), seconds=90, what="its resolution")
        assert [one["state"] for one in stack.ask("/runs/r")["interventions"]] == ["verified"]
        assert stack.ask("/runs/r")["state"] == "running", (
            "it resolved because it was mended, not because the run ended"
        )
        assert {alert["labels"]["alertname"] for _, alert in paged.seen} == {"LossSpike"}, (
            "and nobody heard anything else"
        )
        trainer.send_signal(signal.SIGTERM)
        trainer.wait(60)


@pytest.mark.slow
@pytest.mark.needs("prometheus")
@pytest.mark.needs("alertmanager")
def test_the_example_pages_and_its_end_resolves_the_page(tmp_path: Path) -> None:
    with pager() as paged, Processes(tmp_path / "logs") as processes:
        stack = Stack(processes, tmp_path, paged.url, seconds=1)
        environment = {"LOSSGUARD_URL": stack.collector, "LOSSGUARD_TOKEN": TOKEN, "LOSSGUARD_DIR": str(tmp_path)}
        processes.start("example", str(EXAMPLE), "--seconds", "8", environment=environment)
        _, page = wait_for(lambda: paged.first("NonFiniteLoss", "firing"), seconds=60, what="the page")
        assert page["labels"]["severity"] == "critical"
        assert page["labels"]["project"] == "first-page"
        assert page["annotations"]["summary"].endswith("at step 100")
        wait_for(lambda: paged.first("NonFiniteLoss", "resolved"), seconds=60, what="its resolution")
