"""The detector lab: what settings would have caught, missed and done."""

import time

import numpy as np
import pytest
import sqlalchemy as sa

from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.store import FRESH_SECONDS
from dashboard.views.lab import trial_input
from dashboard.views.lab.figure import outline
from dashboard.views.lab.trial import findings, table, totals
from dashboard.views.lab.trial_input import Trouble, of_curve, of_run, scored
from db import access, queries
from db.engine import reading, writing
from monitor.detection import DetectionSettings, Policy, Rows
from monitor.detection.curve import CurveError
from monitor.detection.simulation import SegmentRows, Simulation, score, simulate
from tests.dashboard.conftest import OpenPage
from tests.dashboard.live import report_a_spike
from tests.dashboard.seed import STEPS, seed
from tests.dashboard.test_pages import figure, metrics, names
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")
SETTINGS = DetectionSettings()


def spiked(num_rows: int = 600, *spikes: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    loss = 2.0 + np.random.default_rng(1).normal(0, 0.03, num_rows)
    for at in spikes:
        loss[at : at + 12] += 3.0
    return loss


def rehearsed(*spikes: int) -> Simulation:
    return simulate(score([SegmentRows(Rows.of(range(600), loss=spiked(600, *spikes)))], SETTINGS), SETTINGS, Policy())


def facts(run_id: str) -> RunFacts:
    found = cached.facts(run_id)
    assert found is not None
    return found


def test_a_known_trouble_is_caught_or_missed_and_what_is_neither_is_new() -> None:
    found = findings(rehearsed(300, 450), [Trouble("planted", 300, 311), Trouble("asleep", 100, 110)])
    assert [(each.verdict, each.trouble and each.trouble.name) for each in found] == [
        ("missed", "asleep"),
        ("caught", "planted"),
        ("new", None),
    ]
    assert (totals(found).caught, totals(found).missed, totals(found).new) == (1, 1, 1)
    assert table(found)["Known trouble"].tolist() == ["asleep", "planted", "-"]


def test_a_trouble_of_another_segment_is_not_caught_by_its_step() -> None:
    assert [each.verdict for each in findings(rehearsed(300), [Trouble("there", 300, 311, segment=1)])] == [
        "new",
        "missed",
    ]


def test_the_lab_finds_what_a_run_had_with_its_discarded_branch_there_to_be_found_again(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time())
    app = open_page("lab", run="spiky-1")
    shown = metrics(app)
    assert (shown["Caught"], shown["Missed"]) == ("1 of 1", "0")
    assert {"loss", "loss, discarded branch", "caught", "rewind"} <= names(figure(app))
    assert app.dataframe[0].value["Known trouble"].tolist() == ["incident 1: loss spike", "-"]
    assert app.dataframe[0].value["Found"].tolist() == ["divergence", "non-finite value"]


def test_a_slider_changes_what_would_be_done_and_a_link_keeps_it(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("lab", run="spiky-1")
    app.slider(key="depth").set_value(300).run()
    assert app.dataframe[0].value["What would be done"][0].startswith("rewind to 100,")
    linked = open_page("lab", run="spiky-1", depth="300")
    assert linked.dataframe[0].value["What would be done"][0].startswith("rewind to 100,")


def test_planted_faults_of_the_configuration_are_the_truth_and_found_by_batch(store: sa.Engine) -> None:
    with writing(store) as session:
        run = add_run(session, config={"faults": ["corrupted_batches@450x12", "bit_flip@9999x1", "nonsense"]})
        batches = [float(step + 150) for step in range(600)]
        add_steps(
            session,
            run,
            add_segment(session, run, "a"),
            range(600),
            loss=spiked(600, 300).tolist(),
            batch_index=batches,
        )
    sample = of_run(facts("r1"), (0, 599))
    assert sample.note == "the faults that were planted"
    assert [(each.first, each.last) for each in sample.troubles] == [(300, 311)]
    found = findings(simulate(scored(sample, SETTINGS), SETTINGS, Policy()), sample.troubles)
    assert [each.verdict for each in found] == ["caught"]


BOTH = ["corrupted_batches@450x12", "lr_kick@450x12"]


@pytest.mark.parametrize(
    ("told", "first"),
    [
        ({"faults_in_data": BOTH[:1]}, [300, 450]),
        ({"faults_in_data": BOTH[:1], "faults_at_steps": True}, [450, 450]),
        ({}, [300, 300]),  # of a trainer that did not tell them apart
    ],
)
def test_a_planted_fault_is_looked_for_at_its_batch_only_where_it_was_in_the_data(
    store: sa.Engine, told: dict[str, object], first: list[int]
) -> None:
    with writing(store) as session:
        run = add_run(session, config={"faults": BOTH, **told})
        batches = [float(step + 150) for step in range(600)]
        add_steps(session, run, add_segment(session, run, "a"), range(600), loss=spiked().tolist(), batch_index=batches)
    assert [each.first for each in of_run(facts("r1"), (0, 599)).troubles] == first


def test_of_a_long_run_the_newest_rows_are_taken(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(store, now=time.time())
    monkeypatch.setattr(trial_input, "MOST", 200)
    sample = of_run(facts("spiky-1"), (0, STEPS - 1))
    assert sample.num_rows <= 200 < sample.total
    assert sample.strands[-1].rows.steps[-1] == STEPS - 1


def test_a_curve_is_told_against_its_column_truth() -> None:
    lines = [f"{step},{value:.4f},{int(300 <= step < 312)}" for step, value in enumerate(spiked(600, 300))]
    sample = of_curve("mine.csv", "\n".join(["step,loss,truth", *lines]).encode())
    assert sample.troubles == [Trouble("marked 300", 300, 311)]
    found = findings(simulate(scored(sample, SETTINGS), SETTINGS, Policy()), sample.troubles)
    assert [each.verdict for each in found] == ["caught"]


@pytest.mark.parametrize("content", [b"", b"step,loss\n1,x\n2,1", b"a,b\n1,2", b"\xff\xfe\x00"])
def test_a_file_that_is_no_curve_is_one_sentence(content: bytes) -> None:
    with pytest.raises(CurveError, match=r"^mine\.csv"):
        of_curve("mine.csv", content)


def test_an_outline_keeps_a_spike_of_one_step_and_leaves_a_gap_for_what_is_not_finite() -> None:
    loss = np.full(1000, 2.0)
    loss[503] = 9.0
    loss[100:120] = np.nan
    steps, low, high = outline(Rows.of(range(1000), loss=loss), 100)
    assert np.nanmax(high) == 9.0
    assert np.flatnonzero(np.isnan(low)).tolist() == [10, 11]
    assert len(steps) == 100


def test_the_lab_of_an_empty_store_and_of_an_unknown_run_says_so(open_page: OpenPage, store: sa.Engine) -> None:
    assert "No runs yet" in open_page("lab").info[0].value
    seed(store, now=time.time())
    app = open_page("lab", run="nobody")
    assert not app.exception
    assert "There is no run nobody" in app.warning[0].value


def test_what_was_written_is_the_runs_own_policy_from_then_on(open_page: OpenPage, store: sa.Engine) -> None:
    report_a_spike(store)
    app = open_page("lab", run="asking", patience="30")
    with writing(store) as session:
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        run.policy = {**(run.policy or {}), "patience": 30}
    time.sleep(FRESH_SECONDS)
    app.run()
    assert "The sliders stand as the run's own policy does." in [caption.value for caption in app.caption]


def test_writing_the_policy_names_what_changes_first(open_page: OpenPage, store: sa.Engine) -> None:
    report_a_spike(store)
    app = open_page("lab", run="asking", patience="30", sensitivity="3.0")
    (button,) = [each for each in app.button if each.label == "Write as the run's policy"]
    told = " ".join(markdown.value for markdown in button.click().run().markdown)
    assert "patience\\: 16 \\-\\> 30" in told
    assert "false\\_alarms\\_per\\_10k" in told
    with reading(store) as session:
        assert len(access.trail(session)) == 1
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        assert run.policy is not None
        assert run.policy["patience"] == 16
