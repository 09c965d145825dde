"""The Compare page: what a link shows, and the messages when there is nothing to compare."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from dashboard.data import cached
from dashboard.figures.style import RUN_COLOURS
from db.models import BlockValues
from db.steps.archived.places import NOT_MOUNTED
from db.store.engine import writing
from tests.dashboard.app_content import column, figure, forget, names
from tests.dashboard.conftest import OpenPage
from tests.dashboard.seed import archive_run
from tests.db.archive.stored import forget_contents
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")

BYTES = {"tokenizer": "bytes", "model": {"vocab_size": 256}, "num_parameters": 1000}
STEPS = 40


def add(
    store: sa.Engine, run_id: str, *, held_out: Sequence[float | None] = (), tokens: int = 0, **values: Any
) -> None:  # fmt: skip
    """A run of STEPS steps with these held-out losses, one every tenth step."""
    columns: dict[str, list[float | None]] = {"loss": [3 - step / STEPS for step in range(STEPS)]}
    if held_out:
        columns["held_out_loss"] = [None] * STEPS
        columns["held_out_loss"][9::10] = held_out
        bits = [None if loss is None else loss / math.log(2) for loss in columns["held_out_loss"]]
        columns["held_out_bits_per_byte"] = bits
    if tokens:
        columns["tokens"] = [(step + 1) * tokens for step in range(STEPS)]
    with writing(store) as session:
        run = add_run(session, run_id, **({"config": BYTES} | values))
        add_steps(session, run, add_segment(session, run, f"{run_id}-1"), range(STEPS), **columns)


def texts(app: AppTest) -> str:
    assert not app.exception
    kinds = (app.info, app.warning, app.caption, app.markdown)
    return "\n".join(each.value for kind in kinds for each in kind)


def rows(app: AppTest, place: int = 0) -> dict[str, dict[str, str]]:
    """First column of a table that is no mark -> the row."""
    assert not app.exception
    table = app.dataframe[place].value
    key = "Run" if "Run" in table else "Setting"
    return {row[key]: {str(name): text for name, text in row.items()} for row in table.to_dict("records")}


def test_the_page_asks_for_runs_until_there_are_two_and_names_what_is_not_in_the_store(
    open_page: OpenPage, store: sa.Engine
) -> None:
    assert "No runs yet." in texts(open_page("compare"))
    add(store, "a", held_out=[2, 2, 2, 1])
    forget()
    assert "Choose two or more runs" in texts(open_page("compare", runs=""))
    app = open_page("compare", runs="a,nobody,a:7")
    shown = texts(app)
    assert "Choose another run or a segment" in shown
    assert "Its page shows the configuration" in shown
    assert "There is no run `nobody` in this store." in shown
    assert "Run `a` has no segment 7: it has 1 segment." in shown
    assert (names(figure(app)), app.multiselect[0].value) == ({"a"}, ["a"])


def test_two_runs_are_overlaid_subtracted_from_the_baseline_and_their_configurations_compared(
    open_page: OpenPage, store: sa.Engine
) -> None:
    add(store, "a", held_out=[3, 2.5, 2.25, 2])
    add(store, "b", held_out=[3, 2, 2, 1.5], config=BYTES | {"lr": 2})
    app = open_page("compare", runs="a,b")
    drawn = figure(app)
    assert names(drawn) == {"a", "b"}
    found = rows(app)
    assert (found["a"]["Minus baseline"], found["b"]["Minus baseline"]) == ("baseline", "-0.5000")
    assert (found["b"]["At step"], found["b"]["Compared"]) == ("39", "both measured")
    assert float(found["a"]["Perplexity"]) == pytest.approx(math.exp(2), abs=1e-3)
    assert found["a"]["Bits per byte"] == f"{2 / math.log(2):.4f}"
    assert list(rows(app, 1)) == ["lr"]
    assert not app.warning
    app = open_page("compare", runs="a,b", baseline="b", only="false")
    assert (rows(app)["a"]["Minus baseline"], rows(app)["b"]["Minus baseline"]) == ("+0.5000", "baseline")
    assert figure(app)["data"] != drawn["data"], "the differences are those from the other run"
    assert {"lr", "tokenizer", "model.vocab_size", "Host"} <= rows(app, 1).keys()
    assert rows(open_page("compare", runs="a,b", baseline="nobody"))["a"]["Minus baseline"] == "baseline"


def test_on_the_token_axis_runs_are_compared_at_equal_tokens_in_a_view_that_another_axis_resets(
    open_page: OpenPage, store: sa.Engine
) -> None:
    add(store, "a", held_out=[3, 2.5, 2.25, 2], tokens=100)
    add(store, "b", held_out=[2.75, 2, 2, 1.5], tokens=200)
    app = open_page("compare", runs="a,b", x="Tokens")
    found = rows(app)["b"]
    assert (found["Minus baseline"], found["At tokens"], found["Compared"]) == ("+0.0000", "4 k", "both measured")
    ends = {trace["name"]: column(trace["x"])[-1] for trace in figure(app)["data"] if trace["yaxis"] == "y"}
    assert ends == {"a": 4000, "b": 8000}
    app = open_page("compare", runs="a,b", view="1000-2000", x="Tokens")
    drawing = figure(app)
    assert list(drawing["layout"]["xaxis"]["range"]) == [1000, 2000]
    inside = {trace["name"]: column(trace["x"])[::10] for trace in drawing["data"] if trace["yaxis"] == "y"}
    assert inside["a"] == [1000, 2000]
    app.segmented_control(key="x").set_value("step").run()
    assert "view" not in app.query_params
    assert figure(app)["layout"]["xaxis"].get("range") is None


def test_a_line_has_the_colour_of_its_place_also_where_it_was_drawn_before_with_another(
    open_page: OpenPage, store: sa.Engine
) -> None:
    for run_id, tokens in (("a", 100), ("b", 0), ("c", 100)):
        add(store, run_id, tokens=tokens)
    for runs, place in (("a,b,c", 2), ("a,c", 1)):
        drawn = figure(open_page("compare", runs=runs, x="Tokens"))["data"]
        colours = {trace["name"]: trace["line"]["color"] for trace in drawn}
        assert colours == {"a": RUN_COLOURS[0], "c": RUN_COLOURS[place]}


def test_runs_without_the_data_for_an_x_axis_are_named_and_the_others_are_drawn(
    open_page: OpenPage, store: sa.Engine
) -> None:
    add(store, "a", tokens=100)
    add(store, "b")
    add(store, "c", tokens=100, config={})
    app = open_page("compare", runs="a,b,c", x="FLOPs")
    assert names(figure(app)) == {"a"}
    assert "b is not drawn: it reported no `tokens`" in texts(app)
    assert "c is not drawn: it reported no `tokens`, or has no `num_parameters`" in texts(app)
    app = open_page("compare", runs="b", x="FLOPs")
    assert not app.get("bidi_component")
    assert "Choose another x axis." in texts(app)


def test_a_segment_is_compared_with_the_live_line_of_its_run(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "forked", config=BYTES)
        add_steps(session, run, add_segment(session, run, "f-1"), range(30), loss=[9.0] * 30)
        add_steps(session, run, add_segment(session, run, "f-2", 20), range(20, 40), loss=[1.0] * 20)
    app = open_page("compare", runs="forked,forked:0")
    drawn = {trace["name"]: column(trace["y"]) for trace in figure(app)["data"]}
    assert drawn == {"forked": [9.0] * 20 + [1.0] * 20, "forked, segment 0": [9.0] * 30}
    assert "All lines belong to one run" in texts(app)
    assert [option for option in app.multiselect[0].options if "segment 1" in option]


@pytest.mark.parametrize(
    ("other", "said", "unsaid"),
    [
        ({"evaluation_set": "aa", "seed": 2}, "All were evaluated on the same windows.", "not comparable"),
        ({"evaluation_set": "cc"}, "different text: they differ in `evaluation_set`.", "same windows"),
        ({"seed": 2}, "may have been evaluated on different text: they differ in", "same windows"),
        ({"tokenizer": "gpt2"}, "Perplexities of different tokenizers are not comparable", "same windows"),
    ],
)
def test_the_page_says_whether_losses_and_perplexities_can_be_compared(
    open_page: OpenPage, store: sa.Engine, other: dict[str, Any], said: str, unsaid: str
) -> None:
    add(store, "a", held_out=[3, 2, 2, 2], config=BYTES | {"seed": 1, "evaluation_set": "aa"})
    add(store, "b", held_out=[3, 2, 2, 2], config=BYTES | {"seed": 1} | other)
    shown = texts(open_page("compare", runs="a,b"))
    assert (said in shown, unsaid in shown) == (True, False)


def test_what_a_run_does_not_report_is_listed_and_a_standard_error_shown(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a")
    with writing(store) as session:
        run = add_run(session, "b", config=BYTES)
        losses = {"held_out_loss": [3.0, 2.5, 2.0], "held_out_loss_se": [0.2, 0.15, 0.125]}
        add_steps(session, run, add_segment(session, run, "b-1"), range(3), **losses)
    app = open_page("compare", runs="a,b")
    assert "a reported no held-out loss." in texts(app)
    assert "b reported no bits per byte" in texts(app)
    assert rows(app)["b"]["Held-out loss"] == "2.0000 \N{PLUS-MINUS SIGN} 0.1250"


def test_selected_lines_and_the_baseline_are_in_the_url_and_curves_stay_when_another_run_is_added(
    open_page: OpenPage, store: sa.Engine
) -> None:
    for name in ("a", "b"):
        add(store, name, tokens=100)
    add(store, "c", held_out=[3, 2, 2, 2], tokens=100)
    app = open_page("compare", x="Tokens")
    app.multiselect(key="compared").set_value(["b", "a"]).run()
    assert app.query_params["runs"] == "b,a"
    app.selectbox(key="baseline_of_compared").set_value("a").run()
    assert app.query_params["baseline"] == "a"
    app.multiselect(key="curves").set_value(["tokens"]).run()
    app.multiselect(key="compared").set_value(["a", "b", "c"]).run()
    assert app.multiselect(key="curves").value == ["tokens"]
    drawing = figure(app)
    assert (names(drawing), drawing["layout"]["xaxis"]["title"]["text"]) == ({"a", "b", "c"}, "Tokens")


def test_the_latest_held_out_loss_of_a_long_run_is_exact_even_if_it_is_nan(store: sa.Engine) -> None:
    for run_id, ends in (("broken", [2.0, math.nan]), ("mended", [math.nan, 2.0])):
        with writing(store) as session:
            run = add_run(session, run_id)
            losses = [3.0] * 5000 + ends
            add_steps(session, run, add_segment(session, run, f"{run_id}-1"), range(5002), held_out_loss=losses)
        facts = cached.facts(run_id)
        assert facts is not None
        latest = cached.latest_value(facts, None, "held_out_loss")
        assert latest is not None
        assert latest.step == 5001
        assert latest.value == pytest.approx(ends[-1], nan_ok=True)


def test_many_long_runs_are_drawn_in_fewer_buckets_and_no_spike_is_lost(open_page: OpenPage, store: sa.Engine) -> None:
    runs = ["a", "b", "c", "d"]
    for place, run_id in enumerate(runs):
        with writing(store) as session:
            run = add_run(session, run_id)
            losses = [25.0 if step == 1234 + place else 2.0 for step in range(5000)]
            add_steps(session, run, add_segment(session, run, f"{run_id}-1"), range(5000), loss=losses)
    few, many = (figure(open_page("compare", runs=",".join(some)))["data"] for some in (runs[:3], runs))
    sizes = [max(len(column(trace["x"])) for trace in drawn) for drawn in (few, many)]
    assert 400 < sizes[0] <= 800
    assert 200 < sizes[1] <= 400
    highest = {trace["legendgroup"]: max(column(trace["y"])) for trace in many if trace.get("fill") == "tonexty"}
    assert highest == dict.fromkeys(runs, 25.0)


def test_a_run_that_cannot_be_read_is_named_with_the_reason_and_the_others_are_drawn(
    open_page: OpenPage, store: sa.Engine, tmp_path: Path
) -> None:
    with writing(store) as session:
        run = add_run(session, "damaged")
        add_steps(session, run, add_segment(session, run, "a"), range(600))
        session.execute(sa.update(BlockValues).values(values=b"\x01cut"))
    add(store, "here", held_out=[2.0, 1.5, 1.2, 1.1])
    archive_run(store, "away", tmp_path / "place")
    shutil.move(tmp_path / "place", tmp_path / "elsewhere")
    forget_contents()
    app = open_page("compare", runs="away,here,damaged", curves="loss")
    warnings = {each.value.partition(" ")[0].strip("`"): each.value for each in app.warning}
    assert warnings["away"].startswith("away is not shown. The archived steps 0 to")
    assert warnings["away"].endswith(f"{NOT_MOUNTED}. This page updates when the file can be read again.")
    assert "The store is damaged: a block of run 'damaged', segment 0, steps 0 to 599, is" in warnings["damaged"]
    assert warnings["damaged"].endswith("restore the store from a backup, or delete the run.")
    assert set(names(figure(app))) == {"here"}
    alone = open_page("compare", runs="away", curves="loss")
    assert [each.value for each in alone.subheader] == ["Held-out loss, perplexity, bits per byte", "Configurations"]
