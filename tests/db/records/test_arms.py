import sqlalchemy as sa

from db.records import arms
from db.store.engine import writing
from tests.db.seed import add_run

DETAILS = {"arm": "wait", "loss": "NaN", "kind": "loss_spike"}


def test_the_arms_of_a_project_are_those_of_all_its_runs_and_the_first_report_counts(engine: sa.Engine) -> None:
    with writing(engine) as session:
        one, two = add_run(session, "one"), add_run(session, "two")
        for run in (one, two):
            arms.save(session, run=run, incident=3, intervention=2, arms={"wait": DETAILS, "rewind": {}})
        arms.save(session, run=one, incident=3, intervention=2, arms={"wait": {"loss": 1.0}})
        assert [(each.arm, each.incident) for each in arms.of_run(session, run=one)] == [("rewind", 3), ("wait", 3)]
        assert list(arms.of_project(session, project=one.project)).count(DETAILS) == 2
        assert list(arms.of_project(session, project="another")) == []
