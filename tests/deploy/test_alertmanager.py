"""Who receives which alerts: the configuration that start.sh writes, checked with amtool."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lossguard_server.processes import Processes
from tests.deploy.files import DEPLOY, alerts, read
from tests.deploy.hostile_names import AS_SLACK_SHOWS_IT, HOSTILE
from tests.deploy.mailbox import mailbox
from tests.deploy.stack import HTTP, start_program, webhook
from tests.ports import free_port
from tests.waiting import wait_for

pytestmark = [pytest.mark.system, pytest.mark.needs("alertmanager")]
START = DEPLOY / "alertmanager" / "start.sh"
MAIL = {"SMTP_HOST": "mail:587", "SMTP_FROM": "lossguard@example.org"}


def run(*command: str | Path, **environment: str) -> str:
    path = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=path | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_config(folder: Path, **environment: str) -> Path:
    run(START, "--write-only", folder, **environment)
    config = folder / "alertmanager.yml"
    run("amtool", "check-config", config)
    return config


def receivers(config: Path) -> dict[str, dict[str, Any]]:
    return {one.pop("name"): one for one in read(config)["receivers"]}


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=NonFiniteLoss", "severity=critical", "project=gpt", "run=r"], "page"),
        (["alertname=LossSpike", "severity=warning", "project=gpt", "run=r"], "notice"),
        (["alertname=CollectorDown", "severity=critical", "instance=a"], "page"),
        (["alertname=NonFiniteLoss", "severity=critical", "project=sandbox-7", "run=r"], "notice"),
    ],
)
def test_critical_alerts_go_to_page_and_others_and_quiet_projects_to_notice(
    tmp_path: Path, labels: list[str], receiver: str
) -> None:
    config = write_config(tmp_path, PAGE_WEBHOOK_URL="http://page", NOTICE_WEBHOOK_URL="http://notice")
    assert run("amtool", "config", "routes", "test", f"--config.file={config}", *labels).strip() == receiver


def test_quiet_projects_come_from_the_environment_whatever_characters_they_contain(tmp_path: Path) -> None:
    config = write_config(tmp_path, PAGE_WEBHOOK_URL="http://page", QUIET_PROJECTS=r"a\d+|o'x#&\"q")
    for project, receiver in (("a17", "notice"), ("sandbox", "page")):
        labels = ("severity=critical", f"project={project}")
        assert run("amtool", "config", "routes", "test", f"--config.file={config}", *labels).strip() == receiver


def test_all_kinds_of_receivers_come_from_the_environment_and_no_secret_is_in_the_configuration(tmp_path: Path) -> None:
    secret = tmp_path / "slack"
    secret.write_text("https://hooks.example.org/SECRET-2\n")
    config = write_config(
        tmp_path,
        PAGE_WEBHOOK_URL="https://page.example.org/SECRET-1",
        PAGE_SLACK_URL_FILE=str(secret),
        PAGE_EMAIL="o'brien@example.org",
        NOTICE_EMAIL="team@example.org",
        **MAIL,
    )
    page, notice = receivers(config)["page"], receivers(config)["notice"]
    assert sorted(page) == ["email_configs", "slack_configs", "webhook_configs"]
    assert page["email_configs"][0]["to"] == "o'brien@example.org"
    assert sorted(notice) == ["email_configs"]
    assert "SECRET" not in config.read_text()
    assert Path(page["webhook_configs"][0]["url_file"]).read_text() == "https://page.example.org/SECRET-1"
    assert Path(page["slack_configs"][0]["api_url_file"]).read_text() == "https://hooks.example.org/SECRET-2"
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir() if path != secret)
    assert all(one[0]["send_resolved"] for one in page.values())


def test_notices_use_the_receivers_of_pages_unless_they_have_their_own(tmp_path: Path) -> None:
    both = receivers(write_config(tmp_path, PAGE_WEBHOOK_URL="http://page"))
    assert both["page"] == both["notice"] != {}


def test_without_any_receiver_it_starts_and_notifies_nobody(tmp_path: Path) -> None:
    assert receivers(write_config(tmp_path)) == {"page": {}, "notice": {}}


def test_mail_without_a_server_is_refused_in_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [START, "--write-only", tmp_path],
        env={"PAGE_EMAIL": "a@example.org"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "SMTP_HOST" in done.stderr


def test_inhibition_rules_name_alerts_that_exist() -> None:
    known = {alert["alert"] for alert in alerts()}
    for rule in read(DEPLOY / "alertmanager" / "alertmanager.yml")["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            assert set(matcher.split('"')[1].split("|")) <= known


def test_a_run_that_waits_for_approval_goes_on_so_that_its_stall_pages() -> None:
    rules = read(DEPLOY / "alertmanager" / "alertmanager.yml")["inhibit_rules"]
    silencing = [rule["source_matchers"] for rule in rules if "RunStalled" in str(rule["target_matchers"])]
    assert silencing == [['alertname="RunHeld"']]


def hostile_alert() -> dict[str, Any]:
    labels = {"alertname": "RunHeld", "severity": "critical", "project": HOSTILE, "run": "r"}
    annotations = {"summary": f"Run r of {HOSTILE} is held", "description": HOSTILE, "link": "http://dash/run?run=r"}
    return {"labels": labels, "annotations": annotations}


def test_the_name_of_a_project_reaches_slack_and_mail_as_plain_text_and_a_webhook_unchanged(tmp_path: Path) -> None:
    with webhook() as hook, mailbox() as mail, Processes(tmp_path / "logs") as processes:
        receivers = {"PAGE_SLACK_URL": hook.url, "PAGE_WEBHOOK_URL": hook.url, "PAGE_EMAIL": "a@example.org"}
        sender = {"SMTP_HOST": mail.address, "SMTP_FROM": "lossguard@example.org"}
        config = write_config(tmp_path, **receivers, **sender)
        config.write_text(
            config.read_text()
            .replace("global:\n", "global:\n  smtp_require_tls: false\n")
            .replace("group_wait: 10s", "group_wait: 0s")
        )
        port = free_port()
        program = Path(shutil.which("prometheus-alertmanager") or "")
        options = (f"--config.file={config}", f"--storage.path={tmp_path}/data", "--cluster.listen-address=")
        start_program(
            processes, "alertmanager", program, *options, f"--web.listen-address=127.0.0.1:{port}", environment={}
        )
        processes.wait_until_up("alertmanager", f"http://127.0.0.1:{port}/-/ready")
        answer = HTTP.request("POST", f"http://127.0.0.1:{port}/api/v2/alerts", json=[hostile_alert()])
        assert answer.status == 200, answer.data
        wait_for(lambda: len(hook.messages) == 2 and mail.mails, seconds=60, what="the notifications")

    (slack,) = (each["attachments"][0] for each in hook.messages if "attachments" in each)
    assert slack["title"] == slack["fallback"] == f"{AS_SLACK_SHOWS_IT} r: firing (1)"
    assert f"RunHeld: Run r of {AS_SLACK_SHOWS_IT} is held" in slack["text"]
    assert not re.search(r"[<>`\u202e\u2028\u0085]|&(?!amp;|lt;|gt;)", slack["title"] + slack["text"])
    assert slack["mrkdwn_in"] == ["pretext"]
    assert "pretext" not in slack

    (sent,) = (each["alerts"][0] for each in hook.messages if "alerts" in each)
    assert sent["labels"]["project"] == HOSTILE, "JSON carries it as it is"

    (received,) = mail.mails
    assert "<!channel>" in received["subject"], "a subject is plain text"
    assert {"From", "To", "Subject", "Date"} < set(received.keys())
    body = received.get_body(("html",))
    assert body is not None
    html = body.get_content()
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert not re.search("<b>bold|<!channel|<http:", html)
