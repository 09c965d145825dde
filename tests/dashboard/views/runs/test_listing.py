"""Which runs are listed, and in what order."""

import pytest

from dashboard.views.runs.listing import SortOrder, filtered
from db.models import Run
from db.overview import Tally

NOW = 10_000.0


def run(
    name: str,
    *,
    state: str = "finished",
    started: float = 0.0,
    last: float = NOW,
    host: str = "h1",
    tags: object = None,
) -> Run:
    return Run(
        id=f"id-{name}",
        project="gpt",
        name=name,
        state=state,
        host=host,
        devices=["NVIDIA H100"],
        command=None,
        capabilities=[],
        config={"tags": tags},
        started_at=started,
        last_report_at=last,
    )


RUNS = [
    (run("newest", started=9.0, tags="sweep 3"), Tally()),
    (run("dead", state="running", started=8.0, last=NOW - 600), Tally(open_incidents=2)),
    (run("alive", state="running", started=7.0, tags=["sweep 3", 7]), Tally(open_incidents=1)),
    (run("Held", started=6.0, host="h2", last=NOW - 60), Tally(waiting=1)),
]


def names(**filters: object) -> list[str | None]:
    return [run.name for run, _ in filtered(RUNS, now=NOW, **filters)]  # type: ignore[arg-type]


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
    assert names(text="GPT held") == ["Held"]
    assert names(text="h100 h2") == ["Held"]
    assert names(text="nobody") == []


def test_tags_are_the_strings_of_a_list_and_can_be_searched() -> None:
    assert names(tags=["sweep 3"]) == names(text="sweep") == ["alive"]
    assert names(tags=["sweep 3", "other"]) == []


def test_a_silent_run_does_not_count_as_running() -> None:
    assert names(states=["running"]) == ["alive"]
    assert names(states=["silent", "needs a person"]) == ["Held", "dead"]


def test_archived_runs_are_listed_only_when_asked_for_and_tags_of_people_replace_those_of_the_loop() -> None:
    archived = run("old", tags=["trial"])
    archived.archived_at, archived.tags, archived.note = 1.0, ["paper"], "the baseline"
    rows = [*RUNS, (archived, Tally())]
    assert "old" not in [each.name for each, _ in filtered(rows, now=NOW)]
    for found in ({"tags": ["paper"]}, {"text": "baseline"}):
        assert [each.name for each, _ in filtered(rows, now=NOW, archived=True, **found)] == ["old"]
    assert filtered(rows, now=NOW, archived=True, tags=["trial"]) == []
