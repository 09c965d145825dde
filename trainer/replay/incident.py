"""The incident that is to be replayed, as a person names it, and where it is known: the collector, the run's folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossguard import Client, CollectorError, NotFound, Rejected, Unauthorised
from lossguard.protocol import RUN_ID_PATTERN
from lossguard.settings import Settings
from trainer.errors import UserMistake
from trainer.replay.record import SIGNALS

NAME = re.compile(rf"(?P<run>{RUN_ID_PATTERN})(?:/(?P<number>[1-9]\d{{0,8}}))?")
AT = re.compile(r"(\d+):(\d+)")
BY_HAND = "without a collector, name the run alone and the steps of the trouble: RUN --at ONSET:DETECTED"
NO_CURVE = ("plateau", "stall")
"""Kinds of incidents that no step shows, so that nothing can be replayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a replay needs to know of an incident."""

    run_id: str
    number: int | None
    """None: described by hand, so that there is no incident to write the verdict to."""
    onset: int
    detected: int
    signal: str
    segment: str | None
    """Key of the segment on which it was detected; None: the first that has the step."""

    def __str__(self) -> str:
        return self.run_id if self.number is None else f"{self.run_id}/{self.number}"


def parse_incident(text: str) -> tuple[str, int | None]:
    """RUN/NUMBER or RUN. Raises UserMistake."""
    match = NAME.fullmatch(text)
    if match is None:
        raise UserMistake(f"The incident {text!r} cannot be read: write RUN/NUMBER, as 20261124-101500-3f2a9c/2.")
    return match["run"], None if match["number"] is None else int(match["number"])


def find_case(text: str, *, at: str | None, url: str | None, directory: Path) -> tuple[Case, Client | None]:
    """The case, and the collector that knows it (None for one that is described by hand). Raises UserMistake."""
    run_id, number = parse_incident(text)
    if at is not None and number is None:
        return by_hand(run_id, at), None
    settings = Settings.read(url=url, directory=directory)
    if at is not None or number is None:
        raise UserMistake(f"Which incident of {run_id}? Write {run_id}/1 for its first; {BY_HAND}.")
    if settings.url is None:
        raise UserMistake(f"The collector that knows {text} is not named: give --url or set LOSSGUARD_URL; {BY_HAND}.")
    client = Client(settings.url, settings.token)
    return look_up(client, run_id, number), client


def by_hand(run_id: str, at: str) -> Case:
    """A case that no collector knows. Raises UserMistake."""
    match = AT.fullmatch(at)
    if match is None or int(match[1]) > int(match[2]):
        raise UserMistake(f"The steps {at!r} cannot be read: write ONSET:DETECTED, as 320:324.")
    onset, detected = int(match[1]), int(match[2])
    return Case(run_id=run_id, number=None, onset=onset, detected=detected, signal="loss", segment=None)


def look_up(client: Client, run_id: str, number: int) -> Case:
    """Ask the collector for an incident. Raises UserMistake for what it does not know, and when it is away."""
    incident = _ask(client, "GET", f"/runs/{run_id}/incidents/{number}")
    if incident["kind"] in NO_CURVE:
        raise UserMistake(f"Incident {run_id}/{number} is a {incident['kind']}: there is no trouble to repeat.")
    segments = {each["number"]: each["key"] for each in _ask(client, "GET", f"/runs/{run_id}")["segments"]}
    return Case(
        run_id=run_id,
        number=number,
        onset=incident["onset_step"],
        detected=incident["detected_step"],
        signal=incident["signal"] if incident["signal"] in SIGNALS else "loss",
        segment=segments[incident["segment"]],
    )


def write_verdict(client: Client, case: Case, verdict: Mapping[str, Any]) -> None:
    """Put the verdict to the incident. Raises UserMistake when the collector does not take it."""
    _ask(client, "PUT", f"/runs/{case.run_id}/incidents/{case.number}/verdict", dict(verdict))


def _ask(client: Client, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    try:
        return client.request(method, path, body)
    except NotFound as problem:
        raise UserMistake(f"{_sentence(problem)}; the incidents of a run are on its page of the dashboard.") from None
    except Unauthorised:
        needed = "read" if method == "GET" else "report"
        raise UserMistake(
            f"The collector at {client.url} refuses the token: set LOSSGUARD_TOKEN to one with the scope {needed}."
        ) from None
    except Rejected as problem:
        raise UserMistake(f"The collector at {client.url} refuses: {problem}.") from None
    except CollectorError as problem:
        raise UserMistake(f"{_sentence(problem)}; {BY_HAND}.") from None


def _sentence(problem: Exception) -> str:
    return str(problem)[:1].upper() + str(problem)[1:]


def folder_of(directory: Path, run_id: str) -> Path:
    """The folder with the run's spools and checkpoints. Raises UserMistake."""
    for folder in sorted(directory.glob(f"*/{run_id}")):
        if any(folder.glob("*.spool")):
            return folder
    raise UserMistake(
        f"There is no run {run_id!r} in {directory}: name the folder that holds its spools and checkpoints with --out."
    )
