import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.guard.restart_state import STATE_FILE, RestartState
from lossguard.spool.history import History
from tests.lossguard.scripted import rollback

STEPS = st.frozensets(st.integers(0, 50), max_size=8)
ORDER = rollback(id=3, key="k", rewind_to=20, skip_from=20, skip_to=40, lr_scale=0.5, remedies=("z_loss",))


@given(discarded=STEPS, on_disk=STEPS)
def test_what_is_kept_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, discarded: frozenset[int], on_disk: frozenset[int]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    state = RestartState(discarded=discarded)
    for each in (state, state.ordered(ORDER, on_disk), state.ordered(ORDER, on_disk).executed()):
        each.save(folder)
        assert RestartState.read(folder, History()) == each


@given(discarded=STEPS, on_disk=STEPS)
def test_nothing_after_the_ordered_step_and_nothing_discarded_is_loaded(
    discarded: frozenset[int], on_disk: frozenset[int]
) -> None:
    state = RestartState(discarded=discarded).ordered(ORDER, on_disk)
    newest = state.newest(on_disk)
    assert newest == max((step for step in on_disk if step <= 20 and step not in discarded), default=None)
    after = state.executed()
    assert not any(map(after.may_load, discarded | {step for step in on_disk if step > 20}))
    assert state.refused() == RestartState(discarded=discarded)
    assert all(map(after.written_anew(range(51)).may_load, on_disk))


def test_the_state_has_reached_the_disk_before_it_replaces_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, new = RestartState(discarded=frozenset({10})), RestartState(discarded=frozenset({10, 20}))
    kept.save(tmp_path)
    flushed: list[tuple[int, RestartState]] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: flushed.append((os.fstat(fd).st_ino, RestartState.read(tmp_path, History())))
    )
    new.save(tmp_path)
    assert flushed == [((tmp_path / STATE_FILE).stat().st_ino, kept)]


def test_an_order_that_the_history_has_answered_counts_as_executed(tmp_path: Path) -> None:
    RestartState().ordered(ORDER, [10, 30]).save(tmp_path)
    state = RestartState.read(tmp_path, History(answered={"k"}))
    assert state == RestartState(discarded=frozenset({30}))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"order": {"id": "x"}, "discards": [], "discarded": []}'])
def test_a_damaged_file_counts_as_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / STATE_FILE).write_text(content)
    assert RestartState.read(tmp_path, History()) == RestartState()


def test_nothing_to_keep_leaves_no_file(tmp_path: Path) -> None:
    RestartState().ordered(ORDER, []).save(tmp_path)
    RestartState().save(tmp_path)
    assert list(tmp_path.iterdir()) == []
