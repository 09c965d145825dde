"""The scored runs of a store: of a run that has not changed since the last time, nothing is read but its revision."""

from typing import NamedTuple

from sqlalchemy.orm import Session

from db import scorecard
from db.store.known_runs import KnownRuns
from monitor.detection.scorecard.scored_run import ScoredRun, is_scored, score_run

MAX_RUNS = 100_000
"""Maximum number of runs in the cache: about half a kilobyte per run, and as much per site."""


class Scored(NamedTuple):
    id: str
    project: str
    score: ScoredRun | None
    """Score of the run; None in auto: such a run is not scored."""


class ScoredRuns:
    """Keeps the score of each run at its revision. Several threads may use it."""

    def __init__(self) -> None:
        self._known: KnownRuns[Scored] = KnownRuns(MAX_RUNS)

    def read(
        self, session: Session, *, project: str | None = None, run_id: str | None = None, since: float | None = None
    ) -> list[Scored]:
        """The runs of a project, one run, or all, the newest first; `since`: those that reported then or later."""
        chosen = scorecard.chosen_runs(session, project=project, run_id=run_id, since=since)
        found = {run.pk: self._known.current(run) for run in chosen}
        changed = [run for run in chosen if found[run.pk] is None]
        for run, record in zip(changed, scorecard.read_runs(session, changed), strict=True):
            scored = Scored(record.id, record.project, score_run(record) if is_scored(record) else None)
            self._known.keep(run, scored)
            found[run.pk] = scored
        return [scored for scored in found.values() if scored is not None]
