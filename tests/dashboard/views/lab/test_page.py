"""The detector lab: what settings would have caught, missed and done."""

import time

import numpy as np
import pytest
import sqlalchemy as sa

from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.data.store import CACHE_SECONDS
from dashboard.views.lab.figure import bucket_ranges
from dashboard.views.lab.trial_input import KnownIncident, of_curve, of_run, scored
from dashboard.views.lab.trial_results import table, totals, trial_results
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


def simulated(*spikes: int) -> Simulation:
    return simulate(score([SegmentRows(Rows.of(range(600), loss=spiked(600, *spikes)))], SETTINGS), SETTINGS, Policy())


def facts(run_id: str) -> RunFacts:
    found = cached.facts(run_id)
    assert found is not None
    return found


def test_a_known_incident_is_caught_or_missed_and_an_unknown_one_is_new() -> None:
    results = trial_results(
        simulated(300, 450), [KnownIncident("injected", 300, 311), KnownIncident("quiet", 100, 110)]
    )
    assert [(each.verdict, each.known and each.known.name) for each in results] == [
        ("missed", "quiet"),
        ("caught", "injected"),
        ("new", None),
    ]
    assert (totals(results).caught, totals(results).missed, totals(results).new) == (1, 1, 1)
    assert table(results)["Known incident"].tolist() == ["quiet", "injected", "-"]


def test_a_known_incident_of_another_segment_is_not_matched_by_its_step() -> None:
    assert [each.verdict for each in trial_results(simulated(300), [KnownIncident("there", 300, 311, segment=1)])] == [
        "new",
        "missed",
    ]


def test_the_lab_detects_an_incident_on_a_discarded_branch_again(open_page: OpenPage, store: sa.Engine) -> None:
    seed(store, now=time.time())
    app = open_page("lab", run="spiky-1")
    shown = metrics(app)
    assert (shown["Caught"], shown["Missed"]) == ("1 of 1", "0")
    assert {"loss", "loss, discarded branch", "caught", "rewind"} <= names(figure(app))
    assert app.dataframe[0].value["Known incident"].tolist() == ["incident 1: loss spike", "-"]
    assert app.dataframe[0].value["Detected as"].tolist() == ["divergence", "non-finite value"]


def test_a_slider_changes_the_simulated_interventions_and_a_link_keeps_it(
    open_page: OpenPage, store: sa.Engine
) -> None:
    seed(store, now=time.time())
    app = open_page("lab", run="spiky-1")
    app.slider(key="depth").set_value(300).run()
    assert app.dataframe[0].value["Intervention"][0].startswith("rewind to 100,")
    linked = open_page("lab", run="spiky-1", depth="300")
    assert linked.dataframe[0].value["Intervention"][0].startswith("rewind to 100,")


def test_injected_faults_of_the_configuration_are_known_incidents_at_their_batches(store: sa.Engine) -> None:
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
    data = of_run(facts("r1"), (0, 599))
    assert data.truth == "the injected faults"
    assert [(each.first, each.last) for each in data.known_incidents] == [(300, 311)]
    results = trial_results(simulate(scored(data, SETTINGS), SETTINGS, Policy()), data.known_incidents)
    assert [each.verdict for each in results] == ["caught"]


BOTH = ["corrupted_batches@450x12", "lr_kick@450x12"]


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ({"faults_in_data": BOTH[:1]}, [300, 450]),
        ({"faults_in_data": BOTH[:1], "faults_at_steps": True}, [450, 450]),
        ({}, [300, 300]),  # an older trainer, which did not record it
    ],
)
def test_an_injected_fault_is_matched_by_batch_only_if_it_was_in_the_data(
    store: sa.Engine, config: dict[str, object], first: list[int]
) -> None:
    with writing(store) as session:
        run = add_run(session, config={"faults": BOTH, **config})
        batches = [float(step + 150) for step in range(600)]
        add_steps(session, run, add_segment(session, run, "a"), range(600), loss=spiked().tolist(), batch_index=batches)
    assert [each.first for each in of_run(facts("r1"), (0, 599)).known_incidents] == first


def test_the_newest_rows_of_a_long_run_are_used(store: sa.Engine) -> None:
    seed(store, now=time.time())
    data = of_run(facts("spiky-1"), (0, STEPS - 1), max_rows=200)
    assert data.num_rows <= 200 < data.num_available
    assert data.segments[-1].rows.steps[-1] == STEPS - 1


def test_a_curve_is_compared_with_its_column_truth() -> None:
    lines = [f"{step},{value:.4f},{int(300 <= step < 312)}" for step, value in enumerate(spiked(600, 300))]
    data = of_curve("mine.csv", "\n".join(["step,loss,truth", *lines]).encode())
    assert data.known_incidents == [KnownIncident("marked 300", 300, 311)]
    results = trial_results(simulate(scored(data, SETTINGS), SETTINGS, Policy()), data.known_incidents)
    assert [each.verdict for each in results] == ["caught"]


@pytest.mark.parametrize("content", [b"", b"step,loss\n1,x\n2,1", b"a,b\n1,2", b"\xff\xfe\x00"])
def test_an_invalid_curve_is_rejected_with_its_file_name(content: bytes) -> None:
    with pytest.raises(CurveError, match=r"^mine\.csv"):
        of_curve("mine.csv", content)


def test_bucket_ranges_keep_a_spike_of_one_step_and_leave_a_gap_for_non_finite_values() -> None:
    loss = np.full(1000, 2.0)
    loss[503] = 9.0
    loss[100:120] = np.nan
    steps, low, high = bucket_ranges(Rows.of(range(1000), loss=loss), 100)
    assert np.nanmax(high) == 9.0
    assert np.flatnonzero(np.isnan(low)).tolist() == [10, 11]
    assert len(steps) == 100


def test_an_empty_store_and_an_unknown_run_are_explained(open_page: OpenPage, store: sa.Engine) -> None:
    assert "No runs yet" in open_page("lab").info[0].value
    seed(store, now=time.time())
    app = open_page("lab", run="nobody")
    assert not app.exception
    assert "There is no run nobody" in app.warning[0].value


def test_saved_settings_become_the_runs_own_policy(open_page: OpenPage, store: sa.Engine) -> None:
    report_a_spike(store)
    app = open_page("lab", run="asking", patience="30")
    with writing(store) as session:
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        run.policy = {**(run.policy or {}), "patience": 30}
    time.sleep(CACHE_SECONDS)
    app.run()
    assert "These are the settings of the run's own policy." in [caption.value for caption in app.caption]


def test_saving_the_policy_lists_the_changes_for_confirmation(open_page: OpenPage, store: sa.Engine) -> None:
    report_a_spike(store)
    app = open_page("lab", run="asking", patience="30", sensitivity="3.0")
    (button,) = [each for each in app.button if each.label == "Save as the run's policy"]
    question = " ".join(markdown.value for markdown in button.click().run().markdown)
    assert "patience\\: 16 \\-\\> 30" in question
    assert "false\\_alarms\\_per\\_10k" in question
    with reading(store) as session:
        assert len(access.trail(session)) == 1
        run = queries.run_named(session, run_id="asking")
        assert run is not None
        assert run.policy is not None
        assert run.policy["patience"] == 16
