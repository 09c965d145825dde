"""Which runs are listed, and in what order."""

import math

import pytest

from dashboard.views.runs.listing import SortOrder, filtered, searched_metrics, unknown_names
from db.overview import Tally
from lossguard.run_search import parse
from tests.dashboard.views.runs.listed import NOW, listed

RUNS = [
    listed("newest", started_at=9.0, config={"tags": "sweep 3"}),
    listed("dead", state="running", started_at=8.0, last_report_at=NOW - 600, tally=Tally(open_incidents=2)),
    listed("alive", state="running", started_at=7.0, config={"tags": ["sweep 3", 7]}, tally=Tally(open_incidents=1)),
    listed("Held", started_at=6.0, host="h2", last_report_at=NOW - 60, tally=Tally(waiting=1)),
]
SWEEP = [
    listed(
        name, config={"optimizer": {"lr": lr}, "seed": 7}, metrics={"loss": loss, "lr": lr / 10}, steps=1000,
        tally=Tally(incidents=1),
    )
    for name, lr, loss in (("low", 1e-4, 2.0), ("high", 1e-2, math.nan))
]  # fmt: skip


def names(text: str = "", **filters: object) -> list[str | None]:
    found = filtered(RUNS, search=parse(text), now=NOW, **filters)  # type: ignore[arg-type]
    return [row.run.name for row in found]


def found_in_sweep(text: str) -> list[str | None]:
    return [row.run.name for row in filtered(SWEEP, search=parse(text), now=NOW)]


def test_runs_that_need_a_person_come_first_then_silent_then_running_ones() -> None:
    assert names() == ["Held", "dead", "alive", "newest"]


@pytest.mark.parametrize(
    ("order", "first"),
    [
        (SortOrder.NEWEST, "newest"),
        (SortOrder.REPORT, "newest"),
        (SortOrder.INCIDENTS, "dead"),
        (SortOrder.NAME, "alive"),
    ],
)
def test_each_sort_order_has_its_own_first_run(order: SortOrder, first: str) -> None:
    assert names(order=order)[0] == first


def test_a_search_matches_all_words_in_any_case() -> None:
    assert names("GPT held") == ["Held"]
    assert names("h100 h2") == ["Held"]
    assert names("nobody") == []


def test_tags_are_the_strings_of_a_list_and_can_be_searched() -> None:
    assert names(tags=["sweep 3"]) == names("sweep") == names('tag:"sweep 3"') == ["alive"]
    assert names(tags=["sweep 3", "other"]) == []


def test_a_silent_run_does_not_count_as_running() -> None:
    assert names(states=["running"]) == names("state:running") == ["alive"]
    assert names(states=["silent", "needs a person"]) == ["Held", "dead"]
    assert names("state:finished") == ["Held", "newest"]


def test_a_name_is_a_field_then_a_setting_then_a_metric() -> None:
    assert (
        found_in_sweep("lr>1e-3") == found_in_sweep("optimizer.lr>1e-3") == found_in_sweep("config.lr>1e-3") == ["high"]
    )
    assert found_in_sweep("metric.lr<=1e-5") == found_in_sweep("loss<2.5") == ["low"]
    assert found_in_sweep("loss=nan") == ["high"]
    assert found_in_sweep("steps>=1k seed=7 incidents>0 -host:h2 open_incidents=0") == ["low", "high"]
    assert found_in_sweep("config.loss<9 metric.seed=7") == []


def test_a_search_says_which_metrics_it_asks_for_and_which_names_it_does_not_know() -> None:
    search = parse("loss<2 metric.lr>0 seed=7 sede=7 metric.nothing>1 state:running word")
    assert searched_metrics(search, ["loss", "lr", "seconds"]) == {"loss", "lr"}
    assert unknown_names(search, SWEEP, ["loss", "lr"]) == {
        "metric.nothing": "metric.nothing: no run has a setting or a metric of this name.",
        "sede": "sede: no run has a setting or a metric of this name. Did you mean seed?",
    }


def test_archived_runs_are_listed_only_when_asked_for_and_tags_of_people_replace_those_of_the_loop() -> None:
    archived = listed("old", config={"tags": ["trial"]}, archived_at=1.0, tags=["paper"], note="the baseline")
    rows = [*RUNS, archived]
    assert "old" not in [row.run.name for row in filtered(rows, now=NOW)]
    for found in ({"tags": ["paper"]}, {"search": parse("baseline")}):
        assert [row.run.name for row in filtered(rows, now=NOW, archived=True, **found)] == ["old"]
    assert filtered(rows, now=NOW, archived=True, tags=["trial"]) == []
    assert filtered(rows, now=NOW, search=parse("archived")) == [archived]
    assert len(filtered(rows, now=NOW, archived=True, search=parse("-archived"))) == len(RUNS)
