"""A simulation concludes what an engine that saw the same rows would have concluded."""

import tracemalloc

import numpy as np

from monitor.detection import DetectionEngine, DetectionSettings, IncidentChanged, Mode, Policy, Rows
from monitor.detection.simulation import SegmentRows, score, simulate

SETTINGS = DetectionSettings()


def loss(steps: range, seed: int = 0, spike: int | None = None) -> Rows:
    values = 2.0 + np.random.default_rng(seed).normal(0, 0.03, len(steps))
    if spike is not None:
        at = spike - steps[0]
        values[at : at + 12] += np.linspace(1, 4, len(values[at : at + 12]))
    return Rows.of(steps, loss=values)


def recorded() -> list[SegmentRows]:
    """A spike at 412, left at 430 for a new segment from 300 on, where nothing happens."""
    return [
        SegmentRows(loss(range(430), spike=412)),
        SegmentRows(loss(range(300, 700), seed=1), number=1, parent=0, fork_step=300, reason="rollback"),
    ]


def test_a_fork_continues_from_the_state_before_the_spike_as_in_the_collector() -> None:
    engine = DetectionEngine(SETTINGS, Policy(mode=Mode.APPROVE))
    old, new = (segment.rows for segment in recorded())
    engine.feed(old[:300], restorable=range(0, 300, 100))
    kept = engine.detectors_state()
    effects = engine.feed(old[300:], restorable=range(0, 430, 100)) + engine.fork(300, "rollback", (), kept)
    effects += engine.feed(new)
    said = {each.incident.number: each.incident for each in effects if isinstance(each, IncidentChanged)}
    assert simulate(score(recorded(), SETTINGS), SETTINGS, Policy()).incidents == said
    assert [incident.detected_step for incident in said.values()] != []


def test_it_shows_on_which_segment_an_incident_began_and_what_would_have_been_done() -> None:
    found = simulate(score(recorded(), SETTINGS), SETTINGS, Policy(name="palm", min_depth=150, skip_min=250))
    assert set(found.segments.values()) == {0}
    (action,) = found.actions.values()
    assert (action.rewind_to, action.skip_from, action.skip_to) == (200, 200, 450)


def test_the_scores_serve_every_policy() -> None:
    scored = score(recorded(), SETTINGS)
    depths = [simulate(scored, SETTINGS, Policy(name="palm", min_depth=depth)).actions for depth in (50, 250)]
    assert [[action.rewind_to for action in actions.values()] for actions in depths] == [[300], [100]]


def test_an_event_is_declared_on_its_own_segment_alone() -> None:
    segments = recorded()
    declared = [SegmentRows(segments[0].rows, declared=[(410, "learning_rate")]), segments[1]]
    plain, shifted = score(segments, SETTINGS), score(declared, SETTINGS)
    same = [
        (a.scores["loss"].z == b.scores["loss"].z).all()
        for a, b in zip(plain[1].scored, shifted[1].scored, strict=True)
    ]
    assert all(same)


def test_checkpoints_are_not_listed_one_by_one_where_steps_count_tokens() -> None:
    scored = score([SegmentRows(loss(range(0, 100_000_000, 100_000)))], SETTINGS)
    tracemalloc.start()
    try:
        simulate(scored, SETTINGS, Policy())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000  # bytes; a list of all has a million entries
