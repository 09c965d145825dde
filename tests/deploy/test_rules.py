"""The alerts: each fires and stays quiet when it should, queries exported metrics, and is documented."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import DASHBOARD, DEPLOY, RULES, alerts, metrics_in, read
from tests.monitor.client import TestClient, Trainer
from tests.monitor.conftest import clock as clock
from tests.monitor.conftest import http as http
from tests.monitor.scenarios import pause_event

TESTS = Path(__file__).parent / "rules.yml"
RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("prometheus")
def test_every_alert_fires_when_it_should_and_stays_quiet_when_it_should() -> None:
    promtool("test", "rules", TESTS)


def test_the_alerts_for_kubernetes_are_written_anew(tmp_path: Path) -> None:
    monitoring = DEPLOY / "kubernetes" / "monitoring"
    subprocess.run([monitoring / "rules.sh", tmp_path / "rules.yaml"], check=True)
    assert (tmp_path / "rules.yaml").read_text() == (monitoring / "rules.yaml").read_text(), "call rules.sh"


def test_every_alert_is_tested_in_both_directions() -> None:
    named = [group["name"].split(" ", 2)[:2] for group in read(TESTS)["tests"]]
    for alert in alerts():
        assert [alert["alert"], "fires"] in named, f"{alert['alert']} has no test that it fires"
        assert [alert["alert"], "stays"] in named, f"{alert['alert']} has no test that it stays quiet"


def test_a_test_of_an_alert_checks_that_alert_and_matches_its_name() -> None:
    for group in read(TESTS)["tests"]:
        alert, direction, *_ = group["name"].split(" ")
        for one in group["alert_rule_test"]:
            assert one["alertname"] == alert
            assert bool(one["exp_alerts"]) == (direction == "fires"), group["name"]


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("name", ["prometheus.yml", "one-machine.yml"])
def test_prometheus_accepts_the_configuration(name: str) -> None:
    promtool("check", "config", "--syntax-only", DEPLOY / "prometheus" / name)


def test_the_configuration_without_containers_differs_only_in_addresses() -> None:
    with_containers, without = (read(DEPLOY / "prometheus" / name) for name in ("prometheus.yml", "one-machine.yml"))
    for config in (with_containers, without):
        for job in config["scrape_configs"]:
            job.pop("static_configs", None)
            job.pop("dns_sd_configs", None)
            job.pop("authorization", None)
        del config["alerting"]["alertmanagers"]
    assert without == with_containers


def test_every_alert_leads_to_a_section_of_the_runbook_and_every_section_has_its_alert() -> None:
    """An alert of a new signal may share the section of another precursor; all others have their own."""
    text = RUNBOOK.read_text()
    sections = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    names = [alert["alert"] for alert in alerts()]
    assert sections == [name for name in names if name in sections], "sections are in the order of the alerts"
    for alert in alerts():
        anchor = alert["annotations"]["runbook_url"].removeprefix("{{ $externalLabels.runbook }}#")
        shared = ("gradspike", "logzdrift") if alert["alert"] not in sections else ()
        assert anchor in (alert["alert"].lower(), *shared)
        assert anchor in map(str.lower, sections)
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        assert "**Look at**" in section, section
        assert "**Do**" in section, section


def test_every_link_within_the_runbook_has_a_target() -> None:
    text = RUNBOOK.read_text()
    sections = {name.lower() for name in re.findall(r"^## (\w+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\(#(\w+)\)", text)) <= sections


def test_every_alert_has_a_severity_and_a_description() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description", "runbook_url"} <= set(alert["annotations"])
        assert "for" in alert
        of_a_run = "by (run, project" in alert["expr"]
        assert ("link" in alert["annotations"]) == of_a_run, "an alert about a run links to it"


@pytest.mark.parametrize("path", [RULES, DASHBOARD, RUNBOOK], ids=lambda path: path.name)
def test_the_files_use_only_metrics_that_the_collector_exports(http: TestClient, path: Path) -> None:
    trainer = Trainer(http)
    series = {name: [1.0] * 20 for name in ("loss", "grad_norm", "log_z", "lr", "tokens")}
    trainer.report(trainer.open("a"), range(20), series, events=[pause_event(20, 60.0)])
    http.post("/api/v1/runs/r1/reports", json={"segment": 0}, headers={"Lossguard-Spool-Bytes": "0"})
    exported = metrics_in(http.get("/metrics").text)
    assert metrics_in(path.read_text()) <= exported
