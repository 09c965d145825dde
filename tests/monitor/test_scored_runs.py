"""A run is read and scored again only when it has changed, and the card is the same as if all had been."""

from typing import Any

import sqlalchemy as sa

from db import commands
from db.scorecard import chosen_runs, read_runs
from db.store.engine import reading, writing
from lossguard.vocabulary.states import RunState
from monitor.detection.scorecard.scored_run import ScoredRun
from monitor.scored_runs import ScoredRuns
from tests.db.seed import NOW, add_segment, add_steps
from tests.monitor.detection.scorecard.stories import score
from tests.monitor.scorecard import store_run

OBSERVE = {"mode": "observe"}


def scores(sqlite_engine: sa.Engine, known: ScoredRuns, **chosen: Any) -> list[ScoredRun]:
    """Those that are known, which are the same as those of a process that knows nothing."""
    with reading(sqlite_engine) as session:
        found = known.read(session, **chosen)
        runs = chosen_runs(session, **chosen)
        assert [each.id for each in found] == [run.id for run in runs]
        anew = score(read_runs(session, runs))
    kept = [each.score for each in found if each.score is not None]
    assert kept == anew
    return kept


def test_whatever_happens_to_runs_their_scores_are_those_of_all_runs_read_anew(sqlite_engine: sa.Engine) -> None:
    known = ScoredRuns()
    with writing(sqlite_engine) as session:
        for run_id in "abc":
            store_run(session, run_id, policy=OBSERVE)
    assert [run.sites[0].ending for run in scores(sqlite_engine, known)] == ["recovered"] * 3
    with writing(sqlite_engine) as session:
        run = commands.lock_run(session, run_id="a")
        assert run is not None
        run.name, run.policy = "another name", {"mode": "approve"}
        add_steps(session, run, add_segment(session, run, "b", fork_step=100), range(100, 300))
        commands.finish_run(session, run=run, state=RunState.FAILED, at=NOW + 300, now=NOW + 300)
        auto = commands.lock_run(session, run_id="b")
        assert auto is not None
        auto.policy = {"mode": "auto"}
    (changed,) = scores(sqlite_engine, known, run_id="a")
    assert (changed.name, changed.mode, changed.num_steps) == ("another name", "approve", 400)
    assert {run.id for run in scores(sqlite_engine, known)} == {"a", "c"}
    assert [run.id for run in scores(sqlite_engine, known, since=NOW + 250)] == ["a"]


def test_a_run_with_the_key_of_a_deleted_one_has_a_score_of_its_own(sqlite_engine: sa.Engine) -> None:
    known = ScoredRuns()
    for end_step in (30, None):
        with writing(sqlite_engine) as session:
            run = store_run(session, "a", policy=OBSERVE, end_step=end_step)
        assert len(scores(sqlite_engine, known)) == 1
        with writing(sqlite_engine) as session:
            commands.delete_run(session, run=run)
    assert scores(sqlite_engine, known) == []


def test_the_queries_of_a_second_read_do_not_grow_with_the_runs(sqlite_engine: sa.Engine) -> None:
    known = ScoredRuns()
    with writing(sqlite_engine) as session:
        for number in range(5):
            store_run(session, f"r{number}", policy=OBSERVE)
    statements: list[str] = []
    sa.event.listen(sqlite_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    with reading(sqlite_engine) as session:
        known.read(session)
    first = len(statements)
    with reading(sqlite_engine) as session:
        known.read(session)
    selects = [statement.startswith("SELECT") for statement in statements]
    assert sum(selects[first:]) == 1 < sum(selects[:first])
