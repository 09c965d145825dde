"""Pages of the list of runs, on both databases."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands
from db.models import Metric, Run
from db.runs import pages
from db.runs.filters import RunFilter
from db.runs.pages import BadCursor
from db.store.engine import reading, writing
from lossguard.vocabulary.run_search import RunOrder, parse
from tests.db.seed import NOW, add_run, add_segment, add_steps, ids_of_runs

CONFIGS: dict[str, dict[str, Any]] = {
    "flat": {"lr": 1e-3, "seed": 7, "name": "AdamW", "resume": True, "betas": [0.9, 0.95], "parent": None},
    "nested": {"optimizer": {"lr": 3e-4, "name": "Lion"}, "model": {"width": 512, "tied": False}, "resume": False},
    "dotted": {"optimizer.lr": 1e-2, "model.width": "512", "tags": ["Sweep", "naïve"]},
    "both": {"lr": 1e-4, "inner": {"lr": 1.0}, "scale": {"lr": 2.0, "min.lr": 5e-1}, "tags": "no list"},
    "nothing": {},
    "listed": {"groups": [{"decay": 0.1}, {"decay": 0.2}], "loss": {"kind": "ce"}, "flag": "true", "custom": 3},
    "hostile": {'a"b': 1, "percent%": 2, "back\\slash": "x.y", "Größe": {"Länge": "Äpfel"}, "lr_": 1e-3},
}
SEARCHES = {
    "lr=1e-3": {"flat"},
    "lr>=1e-3": {"flat", "dotted"},
    "lr>0": {"flat", "nested", "dotted", "both"},
    "lr>1.5": set(),
    "lr<2e-4": {"both"},
    "optimizer.lr>1e-4": {"nested", "dotted"},
    "config.lr=0.0003": {"nested"},
    "min.lr=0.5": {"both"},
    "-lr>0": {"nothing", "hostile", "listed"},
    "name:adam": set(),  # a field comes before a setting
    "config.name:adam": {"flat"},
    "config.name=adamw": {"flat"},
    "config.name=adam": set(),
    "config.name!=adamw": set(CONFIGS) - {"flat"},
    "width=512": {"nested", "dotted"},
    "width:51": {"dotted"},
    "resume=yes": {"flat"},
    "resume:false": {"nested"},
    "betas=0.95": {"flat"},
    "betas>0.99": set(),
    "parent:none": {"flat"},
    "flag=yes": {"listed"},
    "groups.decay>0.15": {"listed"},
    "decay=0.1": {"listed"},
    "kind=ce config.loss.kind:c": {"listed"},
    "config.loss:ce": set(),  # a section is no setting, and hides no metric
    "slash=x.y": set(),
    "länge=äpfel": set(),  # names are compared as they are
    "Länge:äpf": {"hostile"},
    "percent%=2": {"hostile"},
    "lr_=1e-3": {"hostile"},
    "tag:sweep": {"dotted"},
    "tag=naïve": {"dotted"},
    "tag:no": set(),
    "NAÏVE": {"dotted"},
    "dotted": {"dotted"},
    "-t": {"flat"} - {"flat"},
    "train.py": set(CONFIGS),
    "host:h device:cpu": set(CONFIGS),
    "project=GPT state:running": set(CONFIGS),
    "state:finished": set(),
    "state!=finished": set(CONFIGS),
    "archived": set(),
    "-archived": set(CONFIGS),
    "id=nested": {"nested"},
    "steps>=3": {"nested"},
    "steps=0": set(CONFIGS) - {"nested"},
    "loss<2.5": {"flat", "listed"},
    "loss=nan": {"nested"},
    "loss>1e9": {"dotted"},
    "metric.loss>0": {"flat", "dotted", "listed"},
    "custom=3": {"nested", "listed"},
    "metric.custom=3": {"nested"},
    "custom!=3": set(CONFIGS) - {"nested", "listed"},
    "-custom>1 lr>0": {"flat", "dotted", "both"},
    "unheard_of=1": set(),
    "incidents=0 waiting<1 open_incidents<=0 interventions=0": set(CONFIGS),
}


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    with writing(engine) as session:
        _fill(session)
    with reading(engine) as session:
        yield session


def _fill(session: Session) -> None:
    for number, (run_id, config) in enumerate(CONFIGS.items()):
        run = add_run(session, run_id, config=config, started_at=NOW + number)
        session.flush()
        status = commands.run_status_of(session, run=run, now=NOW)
        losses = {"flat": 2.25, "nested": "NaN", "dotted": "Infinity", "listed": 1.0}
        if run_id in losses:
            status.latest_values = {"loss": losses[run_id]}
        if run_id == "nested":
            segment = add_segment(session, run, "a")
            add_steps(session, run, segment, [0, 1, 2], custom=[1.0, 2.0, 3.0], loss=[1.0, 1.0, 1.0])
            status.step = 2
    if session.scalar(sa.select(Metric).where(Metric.name == "loss")) is None:
        raise AssertionError("the metrics of the steps are known")


def test_a_search_finds_the_runs_that_its_terms_mean(session: Session) -> None:
    found = {text: set(ids_of_runs(session, _search(text))) for text in SEARCHES}
    assert found == SEARCHES
    counts = {text: pages.count(session, where=_search(text), now=NOW) for text in SEARCHES}
    assert counts == {text: len(runs) for text, runs in SEARCHES.items()}


def test_a_newest_value_that_is_damaged_costs_no_search(engine: sa.Engine) -> None:
    with writing(engine) as session:
        for run_id, newest in {"one": 1.5, "text": "abc", "list": [1], "object": {"a": 1}, "none": None}.items():
            run = add_run(session, run_id, config={})
            add_steps(session, run, add_segment(session, run, "a"), [0])
            commands.run_status_of(session, run=run, now=NOW).latest_values = {"loss": newest}
    with reading(engine) as session:
        assert ids_of_runs(session, _search("loss<2")) == ["one"]


def test_pages_show_every_run_once_also_while_new_ones_arrive(engine: sa.Engine) -> None:
    with writing(engine) as session:
        for number in range(7):
            add_run(session, f"run-{number}", started_at=NOW + number // 2, name=f"n{number % 3}")
    for order in RunOrder:
        shown: list[str] = []
        cursor: str | None = None
        with writing(engine) as session:
            while True:
                found = pages.page(session, where=RunFilter(), order=order, limit=2, cursor=cursor, now=NOW)
                shown += [run.id for run in found.runs]
                add_run(session, f"new-{order}-{len(shown)}", started_at=NOW + 100, project="a")
                session.flush()
                if (cursor := found.next) is None:
                    break
            known = [run_id for run_id in shown if run_id.startswith("run-")]
            assert sorted(known) == [f"run-{number}" for number in range(7)], order
            session.execute(sa.delete(Run).where(Run.id.like("new-%")))


def test_runs_that_need_a_person_come_first_then_silent_ones_then_running_ones(engine: sa.Engine) -> None:
    with writing(engine) as session:
        runs = {name: add_run(session, name) for name in ("ended", "running", "silent", "asks", "asks-ended")}
        session.flush()
        runs["silent"].last_report_at = NOW - 61
        runs["ended"].state = runs["asks-ended"].state = "finished"
        for name in ("asks", "asks-ended"):
            _propose(session, runs[name])
    with reading(engine) as session:
        order = ids_of_runs(session, RunFilter(), RunOrder.ATTENTION)
        assert order == ["asks", "asks-ended", "silent", "running", "ended"]
        shown = {
            state: set(ids_of_runs(session, RunFilter(shown_states=[state])))
            for state in ("needs a person", "silent", "running", "finished")
        }
        assert shown == {
            "needs a person": {"asks", "asks-ended"},
            "silent": {"silent"},
            "running": {"running"},
            "finished": {"ended"},
        }
        assert ids_of_runs(session, _search("waiting>0 state:running")) == ["asks"]
        assert ids_of_runs(session, _search("state:silent")) == ["silent"]


def test_filters_apply_together(session: Session) -> None:
    def found(**filters: Any) -> set[str]:
        return set(ids_of_runs(session, RunFilter(**filters)))

    everything = set(CONFIGS)
    assert found(projects=["gpt"], states=["running"], archived=False) == everything
    assert found(projects=["other"]) == set()
    assert found(states=[]) == set()
    assert found(archived=True) == set()
    assert found(tags=["Sweep", "naïve"]) == {"dotted"}
    assert found(tags=["sweep"]) == found(tags=["Sweep", "other"]) == set()
    assert found(since=NOW) == everything
    assert found(since=NOW + 1) == set()
    assert found(run_ids=["flat", "x"]) == {"flat"}


def test_a_cursor_of_another_list_is_refused_in_one_sentence(session: Session) -> None:
    newest = pages.page(session, where=RunFilter(), limit=1, now=NOW).next
    assert newest is not None
    with pytest.raises(BadCursor, match="belongs to a list sorted by newest, not by name: start without it"):
        _page(session, newest, RunOrder.NAME)
    far = [pages.cursor_text(["newest", now, 1.0, 1]) for now in (10**400, math.inf, math.nan)]
    for bad in ("", "?", "bm8", newest[:-3], newest + "A", "Ä", "WyJuZXdlc3QiLDEsMSwiYSJd", "W1tbW1tb" * 1000, *far):
        with pytest.raises(BadCursor, match="take it from the answer with the page before"):
            _page(session, bad, RunOrder.NEWEST)


def test_a_page_after_a_run_whose_name_cannot_be_printed_is_found_and_text_that_no_store_takes_is_refused(
    engine: sa.Engine,
) -> None:
    names = ["a\nb", "a\u00a0b", "a\u200bb", "a\u2028b", "b"]
    with writing(engine) as session:
        for name in names:
            add_run(session, name, name=name)
    with reading(engine) as session:
        shown, cursor = 0, pages.page(session, where=RunFilter(), order=RunOrder.NAME, limit=1, now=NOW).next
        while cursor is not None:
            found = pages.page(session, where=RunFilter(), order=RunOrder.NAME, limit=1, cursor=cursor, now=NOW)
            shown, cursor = shown + len(found.runs), found.next
        assert shown == len(names) - 1
        for name in ("a\x00b", "\ud800"):
            with pytest.raises(BadCursor):
                _page(session, pages.cursor_text(["name", NOW, "gpt", name, 1.0, 1]), RunOrder.NAME)


def _page(session: Session, cursor: str, order: RunOrder) -> Sequence[Run]:
    return pages.page(session, where=RunFilter(), order=order, limit=1, cursor=cursor, now=NOW).runs


def _search(text: str) -> RunFilter:
    search = parse(text)
    assert not search.problems
    return RunFilter(search=search)


def _propose(session: Session, run: Run) -> None:
    values: dict[str, Any] = {"incident": None, "kind": "hold", "attempt": 1, "details": {}}
    commands.save_intervention(session, run=run, number=1, now=NOW, state="proposed", **values)


@pytest.mark.slow
def test_a_search_that_takes_the_database_too_long_is_given_up_and_the_next_one_works(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(engine) as session:
        for number in range(200):
            add_run(session, f"r{number}", config={"optimizer": {"lr": number}})
    hard = RunFilter(search=parse(" ".join(f"-lr>{1000 + at}" for at in range(32))))
    with reading(engine) as session:
        monkeypatch.setattr(pages, "SEARCH_SECONDS", 0.001)
        with pytest.raises(pages.SearchTooSlow, match="use fewer terms, or narrow it with project:"):
            pages.page(session, where=hard, limit=None, now=NOW)
    monkeypatch.undo()
    with reading(engine) as session:
        assert pages.count(session, where=RunFilter(search=parse("optimizer.lr>=198")), now=NOW) == 2
