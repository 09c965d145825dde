"""The incident to be replayed: its name on the command line, its description in the collector, its run's folder."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossguard import NOT_REPLAYED, Client, CollectorError, NotFound, Rejected, Unauthorised, is_run_id
from trainer.errors import UsageError, sentence
from trainer.replay.record import SIGNALS

NAME = re.compile(r"(?P<run>[^/]+)(?:/(?P<number>[1-9]\d{0,8}))?")
STEPS = re.compile(r"(\d+):(\d+)")
WITHOUT_COLLECTOR = "without a collector, give the run alone and the steps of the incident: RUN --at ONSET:DETECTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedIncident:
    """The facts of an incident that a replay needs."""

    run_id: str
    number: int | None
    """None: given by its steps, so that no collector can store the verdict."""
    onset: int
    detected: int
    signal: str
    segment: str | None
    """Key of the segment in which it was detected; None: the first segment that has the step."""

    def __str__(self) -> str:
        return self.run_id if self.number is None else f"{self.run_id}/{self.number}"


def find_incident(text: str, *, at: str | None, url: str | None) -> tuple[ReplayedIncident, Client | None]:
    """The incident, and a client of the collector that knows it (None if it is given by its steps).

    Raises UsageError, also for an incident that the collector does not know, and when it is down; ConfigurationError
    for a wrong address.
    """
    match = NAME.fullmatch(text)
    if match is None or not is_run_id(match["run"]):
        raise UsageError(f"The incident {text!r} cannot be read: write RUN/NUMBER, such as 20261124-101500-3f2a9c/2.")
    run_id, number = match["run"], match["number"]
    if at is not None and number is None:
        return incident_at(run_id, at), None
    if at is not None or number is None:
        raise UsageError(f"Which incident of {run_id}? Write {run_id}/1 for its first; {WITHOUT_COLLECTOR}.")
    if not url:
        raise UsageError(
            f"No collector is given that knows {text}: use --url or set LOSSGUARD_URL; {WITHOUT_COLLECTOR}."
        )
    client = Client(url, os.environ.get("LOSSGUARD_TOKEN") or None)
    incident = _request(client, "GET", f"/runs/{run_id}/incidents/{int(number)}")
    if incident["kind"] in NOT_REPLAYED:
        raise UsageError(f"Incident {text} is a {incident['kind']}: it has no step that could be replayed.")
    segments = {each["number"]: each["key"] for each in _request(client, "GET", f"/runs/{run_id}")["segments"]}
    found = ReplayedIncident(
        run_id=run_id,
        number=int(number),
        onset=incident["onset_step"],
        detected=incident["detected_step"],
        signal=incident["signal"] if incident["signal"] in SIGNALS else "loss",
        segment=segments[incident["segment"]],
    )
    return found, client


def incident_at(run_id: str, at: str) -> ReplayedIncident:
    """An incident that no collector knows, by its steps. Raises UsageError."""
    match = STEPS.fullmatch(at)
    if match is None or int(match[1]) > int(match[2]):
        raise UsageError(f"The steps {at!r} cannot be read: write ONSET:DETECTED, such as 320:324.")
    onset, detected = int(match[1]), int(match[2])
    return ReplayedIncident(run_id=run_id, number=None, onset=onset, detected=detected, signal="loss", segment=None)


def write_verdict(client: Client, incident: ReplayedIncident, verdict: Mapping[str, Any]) -> None:
    """Write the verdict to the incident. Raises UsageError when the collector does not accept it."""
    _request(client, "PUT", f"/runs/{incident.run_id}/incidents/{incident.number}/verdict", verdict)


def _request(client: Client, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    try:
        return client.request(method, path, body)
    except NotFound as error:
        raise UsageError(f"{sentence(error)}; the dashboard lists the incidents of a run on its page.") from None
    except Unauthorised:
        scope = "read" if method == "GET" else "report"
        raise UsageError(
            f"The collector at {client.url} refuses the token: set LOSSGUARD_TOKEN to a token with the scope {scope}."
        ) from None
    except Rejected as error:
        raise UsageError(f"The collector at {client.url} rejects the request: {error}.") from None
    except CollectorError as error:
        raise UsageError(f"{sentence(error)}; {WITHOUT_COLLECTOR}.") from None


def run_folder(directory: Path, run_id: str) -> Path:
    """The folder with the run's spools and checkpoints. Raises UsageError."""
    for folder in sorted(directory.glob(f"*/{run_id}")):
        if any(folder.glob("*.spool*")):
            return folder
    raise UsageError(
        f"There is no run {run_id!r} in {directory}: give the folder with its spools and checkpoints as --out."
    )
