"""W&B offline runs, as the real wandb writes them."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lossguard.sources import formats
from lossguard.sources.readers.wandb_offline import BLOCK, CHUNK_HEADER, FULL, LAST, MAX_RECORD, MIDDLE, runs_in
from lossguard.sources.source_run import BadSource
from lossguard.vocabulary.states import RunState
from tests.lossguard.sources.readers.hostile import wandb_log, wandb_record

SCRIPT = """
import math, sys, wandb
run = wandb.init(project="gpt", name="warm", config={"lr": 0.1, "deep": {"a": 1}}, tags=["x"], dir=".")
for step in range(3000):
    run.log({"train/loss": math.nan if step == 7 else 3 - step / 1e4, "nested": {"a": 1.5}, "text": "no"})
run.config.update({"later": 2})
run.log({"eval/loss": math.inf, "train/global_step": 3500})
run.finish(exit_code=len(sys.argv) - 1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of which a run that ended well has written a part."""
    folder = tmp_path_factory.mktemp("wandb")
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DISABLE_GIT": "true"}
    for arguments in ([], ["fail"]):
        subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments], cwd=folder, env=environment, timeout=120, check=False
        )
    return folder


@pytest.mark.system
def test_a_run_is_read_with_its_names_configuration_tags_and_times(folder: Path) -> None:
    runs = sorted(formats.runs_in(folder), key=lambda run: run.state)
    assert [run.state for run in runs] == [RunState.FAILED, RunState.FINISHED]
    run = runs[1]
    assert (run.name, run.project, list(run.tags)) == ("warm", "gpt", ["x"])
    assert run.config == {"lr": 0.1, "deep": {"a": 1}, "later": 2}
    rows = list(run.rows())
    assert [row.step for row in rows] == [*range(3000), 3500]  # the optimizer step, not the count of calls
    assert run.size == 3001
    assert rows[0].values == {"train/loss": 3.0, "nested.a": 1.5}
    assert math.isnan(rows[7].values["train/loss"])
    assert rows[3000].values == {"eval/loss": math.inf}
    times = [row.time or 0.0 for row in rows]
    assert run.started_at is not None
    assert run.started_at <= times[0] <= times[-1] < run.started_at + 600
    assert len({each.run_id for each in runs}) == 2


@pytest.mark.system
def test_a_log_that_is_cut_anywhere_is_read_up_to_the_cut(folder: Path, tmp_path: Path) -> None:
    whole = sorted(folder.rglob("*.wandb"))[0].read_bytes()
    file = tmp_path / "run-a.wandb"
    counts = []
    for size in (BLOCK // 2, BLOCK - 3, BLOCK + 3, 3 * BLOCK, len(whole) - 1):
        file.write_bytes(whole[:size])
        (run,) = runs_in(file)
        counts.append(len(list(run.rows())))
    assert counts == sorted(counts)
    assert 0 < counts[0] < counts[-1]
    file.write_bytes(whole[:20])
    with pytest.raises(BadSource, match="cut off at its beginning"):
        list(runs_in(file))


def test_without_the_package_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run-a.wandb").write_bytes(b":W&B\xe1\xbe\x00")
    monkeypatch.setitem(sys.modules, "wandb.proto.wandb_internal_pb2", None)
    with pytest.raises(BadSource, match="pip install wandb"):
        list(runs_in(tmp_path))


def test_a_chunk_that_lies_about_its_length_or_continues_nothing_ends_the_rows_in_one_sentence(tmp_path: Path) -> None:
    whole = wandb_log()
    for chunk in (
        CHUNK_HEADER.pack(0, BLOCK, FULL) + bytes(BLOCK),  # reaches beyond its block
        CHUNK_HEADER.pack(0, 1, MIDDLE) + b"x",
        CHUNK_HEADER.pack(0, 1, LAST) + b"x",
        CHUNK_HEADER.pack(0, 1, 77) + b"x",
        CHUNK_HEADER.pack(0, 1, FULL) + b"\xff",
    ):
        (tmp_path / "run-a.wandb").write_bytes(whole + chunk)
        (run,) = runs_in(tmp_path)  # the rows before are there
        with pytest.raises(
            BadSource, match=f"behind byte {len(whole)}: a record is damaged|it is damaged, or of a newer"
        ):
            list(run.rows())
        (tmp_path / "run-a.wandb").write_bytes(whole[:7] + chunk)
        with pytest.raises(BadSource):
            list(runs_in(tmp_path))


def test_a_record_that_is_too_long_is_passed_over_without_being_collected(tmp_path: Path) -> None:
    rows = [wandb_record(step, loss="1.5") for step in range(3)]
    (tmp_path / "run-a.wandb").write_bytes(wandb_log([wandb_record(), rows[0], bytes(MAX_RECORD + 1), *rows[1:]]))
    (run,) = runs_in(tmp_path)
    assert [row.step for row in run.rows()] == [0, 1, 2]


@pytest.mark.parametrize("text", ["[" * 100_000, "nonsense", "", "9" * 5000, '"' + "x" * 5000])
def test_a_value_that_is_no_json_costs_its_own_value_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "run-a.wandb").write_bytes(wandb_log([wandb_record(), wandb_record(0, loss="1.5", other=text)]))
    (run,) = runs_in(tmp_path)
    assert [row.values for row in run.rows()] == [{"loss": 1.5}]
