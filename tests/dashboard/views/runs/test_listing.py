"""How the list calls the state of a run, and what it says of names in a search that no run has."""

from dashboard.views.runs.listing import ORDERS, SortOrder, state_of, unknown_names
from db.runs.fields import SHOWN_STATES
from db.runs.orders import RunOrder
from db.runs.overview import Tally
from lossguard.vocabulary.run_search import parse
from tests.dashboard.views.runs.listed import NOW, listed


def test_the_state_of_a_run_is_one_that_can_be_filtered_by() -> None:
    silent = listed("dead", state="running", last_report_at=NOW - 600).run
    shown = [
        state_of(listed("a", state="finished").run, Tally(), NOW),
        state_of(listed("b", state="running").run, Tally(), NOW),
        state_of(silent, Tally(), NOW),
        state_of(silent, Tally(waiting=1), NOW),
    ]
    assert shown == ["finished", "running", "silent", "needs a person"]
    assert set(shown) <= set(SHOWN_STATES)


def test_every_order_of_the_page_is_one_of_the_store() -> None:
    assert set(ORDERS) == set(SortOrder)
    assert set(ORDERS.values()) == set(RunOrder)


def test_names_that_no_run_has_are_named_with_a_suggestion() -> None:
    search = parse("loss<2 metric.lr>0 seed=7 config.seed=7 sede=7 metric.nothing>1 state:running word")
    unknown = unknown_names(
        search, metrics=["loss", "lr"], settings=["seed", "optimizer.lr"], has_setting=lambda name: name == "seed"
    )
    assert unknown == {
        "metric.nothing": "metric.nothing: no run has a setting or a metric of this name.",
        "sede": "sede: no run has a setting or a metric of this name. Did you mean seed?",
    }
