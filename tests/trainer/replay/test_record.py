"""A run's spools are read back as the line that led to one segment."""

import math
from pathlib import Path
from typing import Any

import pytest

from lossguard.spool.lines import from_line, to_line
from lossguard.vocabulary.secrets import mask_json
from trainer.errors import UsageError
from trainer.replay.record import read_record


def line(step: int, batch: int, loss: float | str = 2.0) -> dict[str, Any]:
    return {"step": step, "time": 1.0, "metrics": {"loss": loss, "grad_norm": 1.0, "log_z": 6.0, "batch_index": batch}}


def segment(number: int, fork_step: int, reason: str, **applied: int) -> dict[str, Any]:
    return {"segment": number, "fork_step": fork_step, "reason": reason, "order": None, "applied": applied or None}


def spool(folder: Path, session: str, *lines: dict[str, Any], config: str = "a") -> None:
    folder.mkdir(exist_ok=True)
    run = {"run": {"id": "r", "config": {"name": config}}}
    (folder / f"{session}.spool").write_bytes(b"".join(map(to_line, (run, *lines))) + b'{"step":99,"torn')


def saved(folder: Path, *steps: int) -> None:
    for step in steps:
        place = folder / f"step-{step:09d}"
        place.mkdir(parents=True)
        (place / "manifest.json").touch()


def gone_back(folder: Path) -> None:
    """0 to 6, where it went back to 3 and left batches 3 to 8 out, then a new process from step 5 on."""
    first = [line(step, step, "NaN" if step == 6 else 2.0) for step in range(7)]
    second = [line(step, step + 6) for step in range(3, 7)]
    rollback = segment(1, 3, "rollback", rewound_to=3, skip_from=3, skip_to=9)
    spool(folder, "1", segment(0, 0, "start"), *first, rollback, *second)
    spool(folder, "2", segment(0, 5, "resume"), *[line(step, step + 6, 1.0) for step in range(5, 9)], config="b")
    saved(folder / "checkpoints", 0, 3, 5, 7)
    saved(folder / "checkpoints" / "discarded", 4, 6)


def test_checkpoints_at_a_url_whose_password_was_not_recorded_are_asked_for(tmp_path: Path) -> None:
    gone_back(tmp_path)
    for path in tmp_path.glob("*.spool"):
        config = mask_json({"checkpoints": "sftp://me:hunter2@host/runs"})
        first, *others = path.read_bytes().splitlines(keepends=True)
        run = from_line(first)
        run["run"]["config"] |= config
        path.write_bytes(b"".join((to_line(run), *others)))
    with pytest.raises(UsageError, match=r"at sftp://\*\*\*@host/runs, .*: give the URL with --checkpoints\.$"):
        read_record(tmp_path, key="1-0", step=6)
    assert read_record(tmp_path, key="1-0", step=6, checkpoints=str(tmp_path / "there")).checkpoints == {}


def test_a_discarded_branch_has_its_own_steps_and_discarded_checkpoints(tmp_path: Path) -> None:
    gone_back(tmp_path)
    record = read_record(tmp_path, key="1-0", step=6)
    assert [(step, row.batch) for step, row in record.steps.items()] == [(step, step) for step in range(7)]
    assert math.isnan(record.steps[6].loss)
    assert not record.steps[6].is_finite
    assert {step: record.checkpoint(step).parent.name for step in record.checkpoints} == {
        0: "checkpoints",
        3: "checkpoints",
        4: "discarded",
        6: "discarded",
    }
    assert (record.skipped, record.config) == ((3, 9), {"name": "a"})


def test_the_live_line_takes_the_steps_before_its_fork_from_its_ancestors(tmp_path: Path) -> None:
    gone_back(tmp_path)
    record = read_record(tmp_path, key="2-0", step=8)
    assert [row.batch for row in record.steps.values()] == [0, 1, 2, 9, 10, 11, 12, 13, 14]
    assert [row.loss for row in record.steps.values()] == [2.0] * 5 + [1.0] * 4
    assert sorted(record.checkpoints) == [0, 3, 5, 7]
    assert (record.skipped, record.config) == (None, {"name": "b"})
    assert [record.first_batches[step] for step in (2, 3, 6, 7)] == [2, 3, 6, 13]


def test_a_line_that_only_went_on_in_a_new_process_has_the_checkpoints_up_to_there(tmp_path: Path) -> None:
    gone_back(tmp_path)
    assert sorted(read_record(tmp_path, key="1-1", step=5).checkpoints) == [0, 3, 5]


def test_without_a_key_it_is_the_first_segment_with_that_step(tmp_path: Path) -> None:
    gone_back(tmp_path)
    assert read_record(tmp_path, step=6).steps[6].batch == 6
    assert read_record(tmp_path, step=8).steps[6].loss == 1.0


@pytest.mark.parametrize(("key", "step"), [("1-0", 7), ("9-9", 3), (None, 50)])
def test_a_step_that_was_not_recorded_is_reported(tmp_path: Path, key: str | None, step: int) -> None:
    gone_back(tmp_path)
    with pytest.raises(UsageError, match=f"do not contain step {step}"):
        read_record(tmp_path, key=key, step=step)


def test_steps_and_checkpoints_before_a_gap_are_left_out(tmp_path: Path) -> None:
    spool(tmp_path, "1", segment(0, 0, "start"), *[line(step, step) for step in (0, 1, 2, 4, 5, 6)])
    saved(tmp_path / "checkpoints", 0, 2, 3, 4, 6)
    record = read_record(tmp_path, step=5)
    assert (sorted(record.steps), sorted(record.checkpoints)) == ([4, 5, 6], [4, 6])


def test_a_run_that_logs_no_log_z_cannot_be_replayed(tmp_path: Path) -> None:
    short = line(0, 0)
    del short["metrics"]["log_z"]
    spool(tmp_path, "1", segment(0, 0, "start"), short)
    with pytest.raises(UsageError, match="do not contain step 0"):
        read_record(tmp_path, step=0)


def test_a_folder_that_is_only_named_like_a_checkpoint_is_none(tmp_path: Path) -> None:
    gone_back(tmp_path)
    for name in ("step-2", "step-0000000002", "step-abc"):
        (tmp_path / "checkpoints" / name).mkdir()
        (tmp_path / "checkpoints" / name / "manifest.json").touch()
    assert sorted(read_record(tmp_path, key="1-0", step=6).checkpoints) == [0, 3, 4, 6]
