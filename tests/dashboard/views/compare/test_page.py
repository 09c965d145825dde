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
from db.models import BlockValues
from db.steps.archived import reading
from db.steps.archived.places import NOT_MOUNTED
from db.store.engine import writing
from tests.dashboard.app_content import column, figure, names
from tests.dashboard.archived import archive_run
from tests.dashboard.conftest import OpenPage
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")

BYTES = {"tokenizer": "bytes", "model": {"vocab_size": 256}, "num_parameters": 1000}
STEPS = 40


def add(
    store: sa.Engine,
    run_id: str,
    *,
    held_out: Sequence[float | None] = (),
    every: int = 10,
    tokens: int = 0,
    **values: Any,
) -> None:
    """A run of STEPS steps with these held-out losses, one `every` so many steps."""
    columns: dict[str, list[float | None]] = {"loss": [3 - step / STEPS for step in range(STEPS)]}
    if held_out:
        columns["held_out_loss"] = [None] * STEPS
        columns["held_out_loss"][every - 1 :: every] = held_out
        columns["held_out_bits_per_byte"] = [
            None if loss is None else loss / math.log(2) for loss in columns["held_out_loss"]
        ]
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


def test_an_empty_store_has_nothing_to_compare(open_page: OpenPage) -> None:
    assert "No runs yet." in texts(open_page("compare"))


def test_without_runs_in_the_url_the_page_asks_for_some(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a")
    app = open_page("compare")
    assert "Choose two or more runs" in texts(app)
    assert not app.dataframe


def test_a_single_run_is_drawn_and_the_page_asks_for_another_one(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a", held_out=[2, 2, 2, 1])
    app = open_page("compare", runs="a")
    assert "Choose another run or a segment" in texts(app)
    assert names(figure(app)) == {"a"}
    assert "Its page shows the configuration" in texts(app)


def test_two_runs_are_overlaid_subtracted_and_their_configurations_compared(
    open_page: OpenPage, store: sa.Engine
) -> None:
    add(store, "a", held_out=[3, 2.5, 2.25, 2])
    add(store, "b", held_out=[3, 2, 2, 1.5], config=BYTES | {"lr": 2})
    app = open_page("compare", runs="a,b")
    assert names(figure(app)) == {"a", "b"}
    found = rows(app)
    assert (found["a"]["Minus baseline"], found["b"]["Minus baseline"]) == ("baseline", "-0.5000")
    assert (found["b"]["At step"], found["b"]["Compared"]) == ("39", "both measured")
    assert float(found["a"]["Perplexity"]) == pytest.approx(math.exp(2), abs=1e-3)
    assert found["a"]["Bits per byte"] == f"{2 / math.log(2):.4f}"
    assert list(rows(app, 1)) == ["lr"]
    assert not app.warning


def test_a_link_shows_all_settings_of_the_configurations(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a")
    add(store, "b", config=BYTES | {"lr": 2})
    app = open_page("compare", runs="a,b", only="false")
    assert {"lr", "tokenizer", "model.vocab_size", "Host"} <= rows(app, 1).keys()


def test_a_link_names_the_baseline(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a", held_out=[3, 2.5, 2.25, 2])
    add(store, "b", held_out=[3, 2, 2, 1.5])
    found = rows(open_page("compare", runs="a,b", baseline="b"))
    assert (found["a"]["Minus baseline"], found["b"]["Minus baseline"]) == ("+0.5000", "baseline")
    assert rows(open_page("compare", runs="a,b", baseline="nobody"))["a"]["Minus baseline"] == "baseline"


def test_on_the_token_axis_runs_are_compared_at_equal_tokens(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a", held_out=[3, 2.5, 2.25, 2], tokens=100)
    add(store, "b", held_out=[2.75, 2, 2, 1.5], tokens=200)
    app = open_page("compare", runs="a,b", x="Tokens")
    found = rows(app)["b"]
    assert (found["Minus baseline"], found["At tokens"], found["Compared"]) == ("+0.0000", "4 k", "both measured")
    ends = {trace["name"]: column(trace["x"])[-1] for trace in figure(app)["data"] if trace["yaxis"] == "y"}
    assert ends == {"a": 4000, "b": 8000}


def test_runs_without_the_data_for_an_x_axis_are_named_and_the_others_are_drawn(
    open_page: OpenPage, store: sa.Engine
) -> None:
    add(store, "a", tokens=100)
    add(store, "b")
    add(store, "c", tokens=100, config={})
    app = open_page("compare", runs="a,b,c", x="Tokens")
    assert names(figure(app)) == {"a", "c"}
    assert "b is not drawn: it reported no `tokens`." in texts(app)
    app = open_page("compare", runs="a,b,c", x="FLOPs")
    assert names(figure(app)) == {"a"}
    assert "c is not drawn: it reported no `tokens`, or has no `num_parameters`" in texts(app)
    app = open_page("compare", runs="b", x="FLOPs")
    assert not app.get("bidi_component")
    assert "Choose another x axis." in texts(app)


def test_a_segment_is_compared_with_the_live_line_of_its_run(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a")
    with writing(store) as session:
        run = add_run(session, "forked", config=BYTES)
        add_steps(session, run, add_segment(session, run, "f-1"), range(30), loss=[9.0] * 30)
        add_steps(session, run, add_segment(session, run, "f-2", 20), range(20, 40), loss=[1.0] * 20)
    app = open_page("compare", runs="forked,forked:0")
    drawn = {trace["name"]: column(trace["y"]) for trace in figure(app)["data"]}
    assert drawn == {"forked": [9.0] * 20 + [1.0] * 20, "forked, segment 0": [9.0] * 30}
    assert "All lines belong to one run" in texts(app)
    assert [option for option in app.multiselect[0].options if "segment 1" in option]


def test_an_unknown_run_is_named_and_the_rest_is_compared(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a")
    app = open_page("compare", runs="a,nobody,a:7")
    assert "There is no run `nobody` in this store." in texts(app)
    assert "Run `a` has no segment 7: it has 1 segment." in texts(app)
    assert app.multiselect[0].value == ["a"]


def test_runs_without_held_out_loss_or_bits_per_byte_are_listed_with_how_to_report_them(
    open_page: OpenPage, store: sa.Engine
) -> None:
    add(store, "a")
    with writing(store) as session:
        run = add_run(session, "b", config=BYTES)
        add_steps(session, run, add_segment(session, run, "b-1"), [0, 1], held_out_loss=[3.0, 2.0])
    text = texts(open_page("compare", runs="a,b"))
    assert "a reported no held-out loss." in text
    assert "b reported no bits per byte" in text


@pytest.mark.parametrize(
    ("other", "warned"), [(BYTES, False), ({"tokenizer": "gpt2", "vocab_size": 50257}, True), ({"lr": 1}, True)]
)
def test_a_warning_says_that_perplexities_of_other_or_unknown_tokenizers_are_not_comparable(
    open_page: OpenPage, store: sa.Engine, other: dict[str, Any], warned: bool
) -> None:
    add(store, "a", held_out=[3, 2, 2, 2])
    add(store, "b", held_out=[3, 2, 2, 2], config=other)
    assert (
        "Perplexities of different tokenizers are not comparable" in texts(open_page("compare", runs="a,b"))
    ) == warned


def test_different_evaluation_settings_are_named_below_the_results(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a", config=BYTES | {"seed": 1})
    add(store, "b", config=BYTES | {"seed": 2})
    assert "may have been evaluated on different text: they differ in `seed`." in texts(
        open_page("compare", runs="a,b")
    )


def test_runs_with_the_same_evaluation_set_are_compared_whatever_their_seeds(
    open_page: OpenPage, store: sa.Engine
) -> None:
    for run, seed, digest in (("a", 1, "aa"), ("b", 2, "aa"), ("c", 1, "cc")):
        add(store, run, config=BYTES | {"seed": seed, "evaluation_set": digest})
    same, other = texts(open_page("compare", runs="a,b")), texts(open_page("compare", runs="a,c"))
    assert "All were evaluated on the same windows." in same
    assert "different text" not in same
    assert "different text: they differ in `evaluation_set`." in other
    assert "same windows" not in other


def test_the_held_out_loss_is_shown_with_its_standard_error(open_page: OpenPage, store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, "a", config=BYTES)
        losses = {"held_out_loss": [3.0, 2.5, 2.0], "held_out_loss_se": [0.2, 0.15, 0.125]}
        add_steps(session, run, add_segment(session, run, "a-1"), range(3), **losses)
    assert rows(open_page("compare", runs="a"))["a"]["Held-out loss"] == "2.0000 \N{PLUS-MINUS SIGN} 0.1250"


def test_selecting_lines_updates_the_url(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a", held_out=[3, 2, 2, 2])
    add(store, "b", held_out=[3, 2, 2, 1])
    app = open_page("compare")
    app.multiselect[0].set_value(["b", "a"]).run()
    assert app.query_params["runs"] == "b,a"
    assert rows(app)["b"]["Minus baseline"] == "baseline"
    app.selectbox(key="baseline_of_compared").set_value("a").run()
    assert app.query_params["baseline"] == "a"
    assert rows(app)["a"]["Minus baseline"] == "baseline"


def test_changing_the_x_axis_resets_the_view(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a", tokens=100)
    add(store, "b", tokens=200)
    app = open_page("compare", runs="a,b", view="1000-2000", x="Tokens")
    drawing = figure(app)
    assert list(drawing["layout"]["xaxis"]["range"]) == [1000, 2000]
    inside = {trace["name"]: column(trace["x"]) for trace in drawing["data"]}
    assert (inside["a"][0], inside["a"][-1]) == (1000, 2000)
    assert (inside["b"][0], inside["b"][-1]) == (1000, 2000)
    app.segmented_control(key="x").set_value("step").run()
    assert "view" not in app.query_params
    assert figure(app)["layout"]["xaxis"].get("range") is None


def test_runs_ticked_on_the_list_can_be_compared(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a")
    add(store, "b")
    app = open_page()
    for box in app.checkbox:
        box.check().run()
    link = next(each.proto for each in app.get("page_link") if "Compare" in each.proto.label)
    assert link.label == "**Compare 2 runs**"
    assert "runs=b%2Ca" in link.query_string or "runs=a%2Cb" in link.query_string
    app.checkbox[0].uncheck().run()
    assert [each.proto.label for each in app.get("page_link") if "Compare" in each.proto.label] == ["**Compare 1 run**"]


def test_the_run_page_links_to_its_comparison(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a")
    links = [each.proto for each in open_page("run", run="a").get("page_link")]
    assert [link.query_string for link in links if link.label == "Compare"] == ["runs=a"]


def test_the_latest_held_out_loss_of_a_long_run_is_exact_even_if_it_is_nan(store: sa.Engine) -> None:
    for run_id, ends in (("broken", [2.0, math.nan]), ("mended", [math.nan, 2.0])):
        with writing(store) as session:
            run = add_run(session, run_id)
            losses = [3.0] * 5000 + ends
            add_steps(session, run, add_segment(session, run, f"{run_id}-1"), range(5002), held_out_loss=losses)
    facts = {run_id: cached.facts(run_id) for run_id in ("broken", "mended")}
    assert facts["broken"] is not None
    assert facts["mended"] is not None
    broken, mended = (cached.latest_value(each, None, "held_out_loss") for each in facts.values() if each is not None)
    assert broken is not None
    assert mended is not None
    assert (broken.step, math.isnan(broken.value)) == (5001, True)
    assert (mended.step, mended.value) == (5001, 2.0)


def test_selected_curves_and_axis_stay_when_another_run_adds_metrics(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "a", tokens=100)
    add(store, "b", tokens=100)
    add(store, "c", held_out=[3, 2, 2, 2], tokens=100)
    app = open_page("compare", runs="a,b", x="Tokens")
    app.multiselect(key="curves").set_value(["tokens"]).run()
    app.multiselect(key="compared").set_value(["a", "b", "c"]).run()
    assert app.multiselect(key="curves").value == ["tokens"]
    drawing = figure(app)
    assert (names(drawing), drawing["layout"]["xaxis"]["title"]["text"]) == ({"a", "b", "c"}, "Tokens")


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


def test_a_run_whose_archive_is_away_is_named_and_the_others_are_drawn(
    open_page: OpenPage, store: sa.Engine, tmp_path: Path
) -> None:
    add(store, "here", held_out=[2.0, 1.5, 1.2, 1.1])
    archive_run(store, "away", tmp_path / "place")
    add(store, "also-here")
    shutil.move(tmp_path / "place", tmp_path / "elsewhere")
    reading.forget_contents()
    app = open_page("compare", runs="away,here,also-here", curves="loss")
    (warning,) = [each.value for each in app.warning if each.icon == ":material/cloud_off:"]
    assert warning.startswith("away is not shown. The archived steps 0 to")
    assert warning.endswith(f"{NOT_MOUNTED}. This page updates when the file can be read again.")
    assert set(names(figure(app))) == {"here", "also-here"}
    assert set(rows(app)) == {"away", "here", "also-here"}


def test_when_no_run_can_be_read_each_is_named_and_the_page_remains(
    open_page: OpenPage, store: sa.Engine, tmp_path: Path
) -> None:
    archive_run(store, "away", tmp_path / "place")
    shutil.move(tmp_path / "place", tmp_path / "elsewhere")
    reading.forget_contents()
    app = open_page("compare", runs="away", curves="loss")
    assert not app.exception
    assert len(app.warning) == 1
    assert [each.value for each in app.subheader] == ["Held-out loss, perplexity, bits per byte", "Configurations"]


def test_a_run_of_which_a_block_is_damaged_is_named_without_a_promise(open_page: OpenPage, store: sa.Engine) -> None:
    add(store, "here")
    with writing(store) as session:
        run = add_run(session, "damaged")
        add_steps(session, run, add_segment(session, run, "a"), range(600))
        session.execute(sa.update(BlockValues).values(values=b"\x01cut"))
    app = open_page("compare", runs="damaged,here", curves="loss")
    assert [each.value for each in app.warning] == [
        "`damaged` is not shown. The store is damaged: a block of run 'damaged', segment 0, steps 0 to 599, is "
        "damaged: it cannot be decompressed (ZSTD decompression failed: Src size is incorrect); restore the store from "
        "a backup, or delete the run."
    ]
    assert set(names(figure(app))) == {"here"}
