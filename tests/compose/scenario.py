"""What the running stack goes through. Every function raises Failed, or returns what it measured."""

import re
import shutil
import time

from tests.compose.engine import kill
from tests.compose.stack import PAGER, Failed, Page, Stack, wait_for

PAGE_WITHIN = 60.0  # seconds from the spike's step to the page, with the intervals that are shipped
RESOLVED_WITHIN = 120.0  # seconds from the verified rollback to the page's end
ALERT_TAKES = 45.0  # seconds that an alert may take to the webhook: scrape, evaluation, group_wait, and some more
CLEAN_STEPS = 600
BROKEN_STEPS = 1200
STOPPED_FOR = 15.0  # seconds

Figures = dict[str, str]


def clean_run(stack: Stack) -> Figures:
    """A run without a fault pages nobody."""
    stack.wait_until_ended(stack.train("clean", CLEAN_STEPS))
    time.sleep(ALERT_TAKES)
    if pages := stack.pages():
        raise Failed(f"a clean run paged: {pages}")
    return {f"pages in a clean run of {CLEAN_STEPS} steps": "0"}


def planted_spike(stack: Stack) -> Figures:
    """The trainer's service as it is shipped: its spike is paged, and resolved after the rollback is verified."""
    planted = re.search(r"@(\d+)", stack.services["trainer"]["command"])
    assert planted, "docker-compose.yml's trainer plants a fault"
    stack.compose("up", "--detach", "--no-deps", "--no-build", "trainer")
    page = wait_for(lambda: _first(stack, "firing"), seconds=300, what="a page of the planted spike")
    run_id = page.run
    assert run_id is not None
    strikes = next(row for row in stack.steps(run_id) if row["step"] == planted[1] and row["segment"] == "0")
    to_page = page.time - float(strikes["time"])

    verified_at = wait_for(lambda: _verified_at(stack, run_id), seconds=300, what="a verified rollback")
    resolved = wait_for(lambda: _first(stack, "resolved"), seconds=300, what="the page's resolution")
    still_running = stack.told(run_id)["state"] == "running"
    to_resolved = resolved.time - verified_at
    stack.wait_until_ended(stack.container("trainer")["Id"])
    alerts = {one.alert for one in stack.pages()}
    if alerts != {"LossSpike"}:
        raise Failed(f"the spike paged {sorted(alerts)}, not LossSpike alone")
    if to_page > PAGE_WITHIN or to_resolved > RESOLVED_WITHIN:
        raise Failed(f"too late: paged after {to_page:.0f} s, resolved after {to_resolved:.0f} s")
    if not still_running:
        raise Failed("the run was over when the page was resolved: it may not be the rollback that resolved it")
    return {
        "spike's step to page": f"{to_page:.1f} s",
        "rollback verified to page resolved": f"{to_resolved:.1f} s",
    }


def broken_services(stack: Stack) -> Figures:
    """Database and collector are killed, stopped and restarted under a run, which goes on: no step lost or doubled."""
    figures = {}
    pages_before = len(stack.pages())
    trainer = stack.train("broken", BROKEN_STEPS)
    _wait_for_step(stack, "broken", 100)
    for service in ("postgres", "collector"):
        figures[f"{service} killed, healthy again after"] = f"{_killed(stack, service):.1f} s"
        _wait_for_step(stack, "broken", stack.newest_step("broken") + 100)
    stored = stack.newest_step("broken")
    stack.compose("stop", "postgres")
    time.sleep(STOPPED_FOR)
    figures[f"steps that the run went on with the database stopped for {STOPPED_FOR:.0f} s"] = (
        f"{stored} to {_newest_shown(stack, trainer)}"
    )
    stack.compose("start", "postgres")
    stack.wait_until_healthy("postgres")
    stack.compose("restart", "collector")
    stack.wait_until_healthy("collector")
    stack.wait_until_ended(trainer)
    wait_for(lambda: stack.told("broken").get("state") == "finished", seconds=60, what="the run finished")
    steps = [int(row["step"]) for row in stack.steps("broken")]
    if steps != list(range(BROKEN_STEPS)):
        raise Failed(f"the run has {len(steps)} steps of {BROKEN_STEPS}, {len(set(steps))} of them different")
    paged = sorted({one.alert for one in stack.pages()[pages_before:]})
    figures["paged meanwhile"] = ", ".join(paged) or "nothing"
    return figures | {f"of the {BROKEN_STEPS} steps of that run, lost or doubled": "0"}


def wrong_webhook(stack: Stack) -> Figures:
    """Nobody listens where pages go: Alertmanager goes on, says so in its log and counts it."""
    before = len(stack.pages())
    wrong = PAGER.replace(":8080", ":1")
    stack.compose("up", "--detach", "--wait", "--no-deps", "alertmanager", PAGE_WEBHOOK_URL=wrong)
    amtool = ["exec", "-T", "alertmanager", "amtool", "--alertmanager.url=http://localhost:9093"]
    stack.compose(*amtool, "alert", "add", "alertname=OfTheTest", "severity=critical")
    said = wait_for(lambda: _complaint(stack), seconds=60, what="a word of Alertmanager about the webhook")
    if len(stack.pages()) != before:
        raise Failed("a page arrived although the webhook was wrong")
    stack.compose("up", "--detach", "--wait", "--no-deps", "alertmanager")
    return {"Alertmanager about a wrong webhook": said}


def missing_secrets(stack: Stack) -> Figures:
    """Without its secret nothing starts, and what is missing is named."""
    nowhere = str(stack.secrets.with_name("nowhere"))
    empty = stack.secrets.with_name("empty")
    shutil.copytree(stack.secrets, empty)
    (empty / "postgres_password").write_text("")
    start = ("run", "--rm", "--no-deps", "-T", "migrate")
    return {
        "without the secrets": _refusal(stack, *start, secrets=nowhere),
        "with an empty secret": _refusal(stack, *start, secrets=str(empty)),
    }


def _refusal(stack: Stack, *arguments: str, secrets: str) -> str:
    try:
        stack.compose(*arguments, LOSSGUARD_SECRETS=secrets)
    except Failed as failure:
        said = str(failure).splitlines()[-1]
        if "postgres_password" not in said and "PGPASSWORD_FILE" not in said:
            raise Failed(f"the missing secret is not named: {said}") from None
        return said.replace(str(stack.secrets.parent), "..")
    raise Failed(f"it started with the secrets of {secrets}")


def _first(stack: Stack, status: str) -> Page | None:
    return next((one for one in stack.pages() if one.status == status), None)


def _verified_at(stack: Stack, run_id: str) -> float | None:
    done = [one for one in stack.told(run_id).get("interventions", []) if one["state"] == "verified"]
    return float(done[0]["changed_at"]) if done else None


def _wait_for_step(stack: Stack, run_id: str, step: int) -> None:
    wait_for(lambda: stack.newest_step(run_id) >= step, seconds=120, what=f"step {step} of run {run_id}")


def _killed(stack: Stack, service: str) -> float:
    """Seconds until the service is healthy again after its process was killed; its restart policy brings it back."""
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
    """The newest step that the trainer itself tells of."""
    found = re.findall(r"step\s+(\d+)", stack.docker("logs", "--tail", "5", container))
    return str(found[-1]) if found else "none"


def _complaint(stack: Stack) -> str | None:
    told = (line for line in stack.logs("alertmanager") if "connection refused" in line and "webhook" in line)
    return next(told, None)
