"""What the lab simulates on: a stored run with its known incidents, or an uploaded curve."""

import time
import tracemalloc
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.views.lab import trial_input
from dashboard.views.lab.trial_input import KnownIncident, TrialInput, of_curve, of_run, scored
from dashboard.views.lab.trial_results import trial_results
from db import queries
from db.models import Run
from db.store.engine import reading, writing
from monitor.detection import DetectionSettings, Policy
from monitor.detection.curve import CurveError
from monitor.detection.simulation import simulate
from tests.dashboard.facts import facts_of
from tests.dashboard.seed import STEPS, seed
from tests.dashboard.views.lab.curves import spiked
from tests.db.seed import add_run, add_segment, add_steps

pytestmark = pytest.mark.usefixtures("store")


SETTINGS = DetectionSettings()


FAULTS = ["corrupted_batches@450x12", "lr_kick@450x12"]


def stored_facts(run_id: str) -> RunFacts:
    found = cached.facts(run_id)
    assert found is not None
    return found


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
    data = of_run(stored_facts("r1"), (0, 599))
    assert data.truth == "the injected faults"
    assert [(each.first, each.last) for each in data.known_incidents] == [(300, 311)]
    results = trial_results(simulate(scored(data, SETTINGS), SETTINGS, Policy()), data.known_incidents)
    assert [each.verdict for each in results] == ["caught"]


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ({"faults_in_data": FAULTS[:1]}, [300, 450]),
        ({"faults_in_data": FAULTS[:1], "faults_at_steps": True}, [450, 450]),
        ({}, [300, 300]),  # an older trainer, which did not record it
    ],
)
def test_an_injected_fault_is_matched_by_batch_only_if_it_was_in_the_data(
    store: sa.Engine, config: dict[str, object], first: list[int]
) -> None:
    with writing(store) as session:
        run = add_run(session, config={"faults": FAULTS, **config})
        batches = [float(step + 150) for step in range(600)]
        add_steps(session, run, add_segment(session, run, "a"), range(600), loss=spiked().tolist(), batch_index=batches)
    assert [each.first for each in of_run(stored_facts("r1"), (0, 599)).known_incidents] == first


def test_the_newest_rows_of_a_long_run_are_used(store: sa.Engine) -> None:
    seed(store, now=time.time())
    data = of_run(stored_facts("spiky-1"), (0, STEPS - 1), max_rows=200)
    assert data.num_rows <= 200 < data.num_available
    assert data.segments[-1].rows.steps[-1] == STEPS - 1


def test_a_run_has_its_own_steps_and_scores_and_not_those_of_a_deleted_run_of_its_id(store: sa.Engine) -> None:
    def read(started_at: float, loss: list[float]) -> TrialInput:
        with writing(store) as session:
            session.execute(sa.delete(Run))
            session.flush()
            run = add_run(session, started_at=started_at)
            add_steps(session, run, add_segment(session, run, "a"), range(len(loss)), loss=loss)
        with reading(store) as session:
            segments = queries.segments(session, run=run)
        return of_run(facts_of(run, segments=segments, metrics=["loss"]), (0, 9))

    first, second = read(1.0, [3.0] * 10), read(2.0, [5.0] * 10)
    assert [each.segments[0].rows.metrics["loss"][0] for each in (first, second)] == [3.0, 5.0]
    assert first.key != second.key


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


BOMBS: dict[str, Callable[[], bytes]] = {
    "rows": lambda: b"step,loss\n" + b"".join(b"%d,1\n" % step for step in range(10_002)),
    "blank lines": lambda: b"step,loss\n" + b"\n" * 8_000_000,
    "an open quote": lambda: b'step,loss\n1,"' + b"\n" * 8_000_000,
    "wide characters": lambda: b"step,loss\n" + "\U0001f600".encode() * 2_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_memory_stays_bounded_whatever_is_uploaded(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_input, "MAX_CURVE_ROWS", 10_000)
    content = BOMBS[bomb]()
    tracemalloc.start()
    try:
        with pytest.raises(CurveError, match=r"^mine\.csv") as raised:
            of_curve("mine.csv", content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20
    assert len(str(raised.value)) < 200
