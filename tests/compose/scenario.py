"""The scenarios of the compose test. Each function raises Failed, or returns its measurements."""

import re
import shutil
import time
from pathlib import Path

from tests.compose.engine import kill
from tests.compose.stack import WEBHOOK_URL, Failed, Notification, Stack, wait_for
from tests.waiting import pause

MAX_ALERT_SECONDS = 60.0  # from the spike's step to the alert, with the shipped intervals
MAX_RESOLUTION_SECONDS = 120.0  # from the verified rollback to the resolution of the alert
ALERT_SECONDS = 45.0  # that an alert may need to reach the webhook: scrape, evaluation, group_wait, and a margin
CLEAN_STEPS = 600
BROKEN_STEPS = 1200
DATABASE_STOP_SECONDS = 15.0

Figures = dict[str, str]


def clean_run(stack: Stack) -> Figures:
    """A run without a fault raises no alert."""
    stack.wait_until_ended(stack.train("clean", CLEAN_STEPS))
    pause(ALERT_SECONDS)  # that nothing happens can only be waited for
    if notifications := stack.notifications():
        raise Failed(f"a clean run raised alerts: {notifications}")
    return {f"alerts in a clean run of {CLEAN_STEPS} steps": "0"}


def injected_spike(stack: Stack) -> Figures:
    """The trainer's service as shipped: its spike raises an alert, which resolves after the rollback is verified."""
    injected = re.search(r"@(\d+)", stack.services["trainer"]["command"])
    assert injected, "docker-compose.yml's trainer injects a fault"
    stack.compose("up", "--detach", "--no-deps", "--no-build", "trainer")
    alert = wait_for(lambda: _first(stack, "firing"), seconds=300, what="an alert about the injected spike")
    run_id = alert.run
    assert run_id is not None
    spike = next(row for row in stack.steps(run_id) if row["step"] == injected[1] and row["segment"] == "0")
    to_alert = alert.time - float(spike["time"])

    verified_at = wait_for(lambda: _verified_at(stack, run_id), seconds=300, what="a verified rollback")
    resolved = wait_for(lambda: _first(stack, "resolved"), seconds=300, what="the resolution of the alert")
    still_running = stack.run(run_id)["state"] == "running"
    to_resolved = resolved.time - verified_at
    stack.wait_until_ended(stack.container("trainer")["Id"])
    alerts = {one.alert for one in stack.notifications()}
    if alerts != {"LossSpike"}:
        raise Failed(f"the spike raised {sorted(alerts)}, not only LossSpike")
    if to_alert > MAX_ALERT_SECONDS or to_resolved > MAX_RESOLUTION_SECONDS:
        raise Failed(f"too late: alert after {to_alert:.0f} s, resolved after {to_resolved:.0f} s")
    if not still_running:
        raise Failed("the run had ended when the alert resolved: the rollback may not have resolved it")
    return {"spike's step to alert": f"{to_alert:.1f} s", "rollback verified to alert resolved": f"{to_resolved:.1f} s"}


def broken_services(stack: Stack) -> Figures:
    """Database and collector are killed, stopped and restarted during a run: no step is lost or duplicated."""
    figures = {}
    num_before = len(stack.notifications())
    trainer = stack.train("broken", BROKEN_STEPS)
    _wait_for_step(stack, "broken", 100)
    for service in ("postgres", "collector"):
        figures[f"{service} killed, healthy again after"] = f"{_killed(stack, service):.1f} s"
        _wait_for_step(stack, "broken", stack.newest_step("broken") + 100)
    stored = stack.newest_step("broken")
    stack.compose("stop", "postgres")
    pause(DATABASE_STOP_SECONDS)
    figures[f"progress of the run with the database stopped for {DATABASE_STOP_SECONDS:.0f} s"] = (
        f"{stored} to {_newest_shown(stack, trainer)}"
    )
    stack.compose("start", "postgres")
    stack.wait_until_healthy("postgres")
    stack.compose("restart", "collector")
    stack.wait_until_healthy("collector")
    stack.wait_until_ended(trainer)
    wait_for(lambda: stack.run("broken").get("state") == "finished", seconds=60, what="the run finished")
    steps = [int(row["step"]) for row in stack.steps("broken")]
    if steps != list(range(BROKEN_STEPS)):
        raise Failed(f"the run has {len(steps)} steps of {BROKEN_STEPS}, {len(set(steps))} of them different")
    raised = sorted({one.alert for one in stack.notifications()[num_before:]})
    figures["alerts meanwhile"] = ", ".join(raised) or "nothing"
    return figures | {f"of the {BROKEN_STEPS} steps of that run, lost or duplicated": "0"}


def wrong_webhook(stack: Stack) -> Figures:
    """Nothing listens at the webhook's address: Alertmanager keeps running and logs the failure."""
    num_before = len(stack.notifications())
    wrong = WEBHOOK_URL.replace(":8080", ":1")
    stack.compose("up", "--detach", "--wait", "--no-deps", "alertmanager", PAGE_WEBHOOK_URL=wrong)
    amtool = ["exec", "-T", "alertmanager", "amtool", "--alertmanager.url=http://localhost:9093"]
    stack.compose(*amtool, "alert", "add", "alertname=OfTheTest", "severity=critical")
    logged = wait_for(
        lambda: _webhook_error(stack), seconds=60, what="an error about the webhook in Alertmanager's log"
    )
    if len(stack.notifications()) != num_before:
        raise Failed("an alert arrived although the webhook was wrong")
    stack.compose("up", "--detach", "--wait", "--no-deps", "alertmanager")
    return {"Alertmanager about a wrong webhook": logged}


def missing_secrets(stack: Stack) -> Figures:
    """Nothing starts without its secrets, and the error names the file of a missing one."""
    absent = stack.secrets.with_name("absent")
    empty = stack.secrets.with_name("empty")
    shutil.copytree(stack.secrets, empty)
    (empty / "postgres_password").write_text("")
    needed = stack.services["migrate"]["secrets"]  # the engine mounts them in no particular order
    return {
        "without the secrets": _refusal(stack, absent, {str(absent / name) for name in needed}),
        "with an empty secret": _refusal(stack, empty, {"PGPASSWORD_FILE=/run/secrets/postgres_password"}),
    }


def _refusal(stack: Stack, secrets: Path, names: set[str]) -> str:
    """The error with which a service refuses to start. Raises Failed if it starts, or names none of `names`."""
    try:
        stack.compose("run", "--rm", "--no-deps", "-T", "migrate", LOSSGUARD_SECRETS=str(secrets))
    except Failed as failure:
        message = str(failure).splitlines()[-1]
        if not any(name in message for name in names):
            raise Failed(f"the missing secret is not named: {message}") from None
        return message.replace(str(secrets.parent), "..")
    raise Failed(f"it started with the secrets of {secrets}")


def _first(stack: Stack, status: str) -> Notification | None:
    return next((one for one in stack.notifications() if one.status == status), None)


def _verified_at(stack: Stack, run_id: str) -> float | None:
    done = [one for one in stack.run(run_id).get("interventions", []) if one["state"] == "verified"]
    return float(done[0]["changed_at"]) if done else None


def _wait_for_step(stack: Stack, run_id: str, step: int) -> None:
    wait_for(lambda: stack.newest_step(run_id) >= step, seconds=120, what=f"step {step} of run {run_id}")


def _killed(stack: Stack, service: str) -> float:
    """Kill the service's process; seconds until its restart policy has made it healthy again."""
    before = stack.container(service)
    kill(before["State"]["Pid"])
    killed_at = time.monotonic()
    wait_for(
        lambda: stack.container(service)["RestartCount"] > before["RestartCount"],
        seconds=60,
        what=f"{service} restarted",
    )
    stack.wait_until_healthy(service)
    return time.monotonic() - killed_at


def _newest_shown(stack: Stack, container: str) -> str:
    """The newest step in the trainer's own log."""
    found = re.findall(r"step\s+(\d+)", stack.docker("logs", "--tail", "5", container))
    return str(found[-1]) if found else "none"


def _webhook_error(stack: Stack) -> str | None:
    lines = (line for line in stack.logs("alertmanager") if "connection refused" in line and "webhook" in line)
    return next(lines, None)
