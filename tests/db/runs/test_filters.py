"""What runs can be filtered by, on both databases."""

import sqlalchemy as sa

from db import run_settings
from db.runs import filters
from db.runs.filters import RunFilter
from db.store.engine import reading, writing
from lossguard.vocabulary.run_search import parse
from tests.db.seed import add_run, add_segment, add_steps, ids_of_runs


def test_projects_tags_states_and_settings_are_those_of_the_runs(engine: sa.Engine) -> None:
    with writing(engine) as session:
        tagged = add_run(session, "a", project="p", config={"tags": ["of the loop", 3], "optimizer": {"lr": 1}})
        tagged.tags = ["given"]
        run_settings.save(session, tagged)
        add_run(session, "b", project="p", config={"tags": ["of the loop", "naïve"], "optimizer": {"lr": 1}})
        add_run(session, "c", project="o", config={"tags": "no list", "api_key": "x"}).state = "failed"
        session.flush()
    with reading(engine) as session:
        assert filters.projects(session) == ["o", "p"]
        assert filters.tags(session) == ["given", "naïve", "of the loop"]
        assert set(filters.settings(session)) == {"tags", "optimizer.lr", "api_key"}
        assert filters.settings(session)[-1] == "api_key"
        found = [name for name in ("lr", "optimizer.lr", "r", "l") if filters.has_setting(session, name)]
        assert found == ["lr", "optimizer.lr"]


def test_a_metric_with_the_name_of_a_field_is_found_by_its_prefix(engine: sa.Engine) -> None:
    with writing(engine) as session:
        for run_id, value in (("low", 1.0), ("high", 9.0)):
            run = add_run(session, run_id)
            add_steps(session, run, add_segment(session, run, "a"), range(2), steps=[value] * 2)
    with reading(engine) as session:
        for text, found in (("metric.steps>5", ["high"]), ("steps=2 metric.steps<5", ["low"]), ("steps>5", [])):
            assert ids_of_runs(session, RunFilter(search=parse(text))) == found
