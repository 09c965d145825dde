"""A replay names the cause that was injected, and the batches where batches have a part in it."""

import json
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import lossguard
from lossguard import Cause
from tests.trainer.small import logged, small_recipe, waits_for_an_order
from trainer.cli import app
from trainer.config import CheckpointConfig, ModelConfig, OptimizerConfig, Recipe
from trainer.data.batches import open_batches
from trainer.data.tokenizer import Bytes
from trainer.data.windows import PADDING, Batch
from trainer.drill.collector import run_collector
from trainer.errors import UsageError
from trainer.faults import parse_fault
from trainer.model import GPT
from trainer.replay.incident import incident_at, run_folder
from trainer.replay.record import read_record
from trainer.replay.replay import bisect, excerpt, replay
from trainer.replay.rerun import Rerun, recipe_of_replay
from trainer.replay.verdict import ReplayVerdict
from trainer.train import Job, train


def recipe(folder: Path) -> Recipe:
    """142 steps, a checkpoint every 20."""
    optimizer = OptimizerConfig(lr=1e-2, warmup_steps=4, decay_steps=400)
    return small_recipe(
        folder, steps=142, evaluate_every=0, probe_every=0, checkpoint=CheckpointConfig(every=20), optimizer=optimizer
    )


def trained(folder: Path, *faults: str, gate: bool = False) -> Job:
    injected = [parse_fault(each) for each in faults]
    job = Job(directory=folder, run_id="r", mode="offline", quiet=True, faults=injected, gate=gate)
    train(recipe(folder), job)
    return job


def replayed(folder: Path, at: str) -> ReplayVerdict:
    incident = incident_at("r", at)
    return replay(incident, read_record(run_folder(folder, "r"), step=incident.detected), report=lambda _: None)


INJECTED = [
    (Cause.HARDWARE, ["nan_gradient@130"], "130:130", []),
    (Cause.DATA, ["random_targets@130x6"], "130:131", [(130, 136)]),
    *(
        pytest.param(*each, marks=pytest.mark.system)
        for each in (
            (Cause.HARDWARE, ["lr_kick@130"], "131:132", []),
            (Cause.STATE, ["moment_flip@119"], "120:121", []),
            (Cause.STATE, ["growing_weights@119"], "121:124", []),
            (Cause.DATA_X_STATE, ["swollen_row@110", "rare_token@130x3"], "130:131", [(130, 133)]),
        )
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("cause", "faults", "at", "culprits"), INJECTED)
def test_the_injected_cause_is_named(
    tmp_path: Path, cause: Cause, faults: list[str], at: str, culprits: list[tuple[int, int]]
) -> None:
    trained(tmp_path, *faults)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    verdict = replayed(tmp_path, at)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "it leaves the run as it was"
    assert (verdict.cause, list(verdict.culprits)) == (cause, culprits)
    assert verdict.repeat_error == 0.0  # bit for bit: the same machine, on the CPU
    assert (verdict.departed_at is not None) == (cause is Cause.HARDWARE)
    assert [(arm.checkpoint, arm.state, arm.batches) for arm in verdict.arms] == [
        (120, "same", "same"),
        (120, "same", "other"),
        (60, "earlier", "same"),
        (60, "earlier", "other"),
    ]
    assert len(verdict.excerpts) == (3 if culprits else 0)


@pytest.mark.system
def test_a_state_that_the_batches_before_it_have_spoilt_is_traced_to_them(tmp_path: Path) -> None:
    """The batches are wrong from 112 on, the onset was dated too late, and the checkpoint of 120 has learnt them."""
    trained(tmp_path, "random_targets@112x16")
    verdict = replayed(tmp_path, "121:122")
    assert (verdict.cause, verdict.first, list(verdict.culprits)) == (Cause.DATA, 100, [(112, 128)])


@pytest.mark.system
def test_without_an_earlier_checkpoint_batches_are_not_distinguished_from_the_state(tmp_path: Path) -> None:
    trained(tmp_path, "random_targets@130x6")
    for place in (tmp_path / "trainer" / "r" / "checkpoints").glob("step-*"):
        if place.name != "step-000000120":
            shutil.rmtree(place)
    verdict = replayed(tmp_path, "130:131")
    assert (verdict.cause, verdict.sentence.split(":")[0]) == (Cause.UNDETERMINED, "Undetermined")
    assert "no earlier checkpoint is left" in verdict.sentence


@pytest.mark.system
def test_an_anomaly_that_normal_steps_have_too_is_left_undetermined(tmp_path: Path) -> None:
    trained(tmp_path)
    verdict = replayed(tmp_path, "130:131")
    assert (verdict.cause, list(verdict.arms)) == (Cause.UNDETERMINED, [])
    assert "too small to judge" in verdict.sentence


@pytest.mark.system
def test_the_batches_are_as_the_run_met_them_also_where_a_fault_was_placed_by_its_step(tmp_path: Path) -> None:
    """As in a drill, where batches were skipped before."""
    job = Job(directory=tmp_path, run_id="r", mode="offline", quiet=True, faults_at_steps=True)
    faults = [parse_fault("corrupted_batches@130x1")]
    train(recipe(tmp_path), replace(job, faults=faults, skips=[lossguard.Skip(50, 60)]))
    verdict = replayed(tmp_path, "130:130")
    (excerpt,) = verdict.excerpts
    assert (list(verdict.culprits), excerpt.batch) == ([(140, 141)], 140)
    assert sorted(excerpt.inputs) != sorted(excerpt.targets)
    assert set(excerpt.inputs) <= set("0123456789 bottlesfrnhwa,.\n")


MISTAKES = {
    "The incident 'a/b/c' cannot be read: write RUN/NUMBER": ["a/b/c"],
    "Which incident of r? Write r/1 for its first": ["r"],
    "No collector is given that knows r/1": ["r/1"],
    "The steps '9-3' cannot be read": ["r", "--at", "9-3"],
    "There is no run 'other' in": ["other", "--at", "3:3"],
    "do not contain step 900": ["r", "--at", "3:900"],
    "Only 3 of the 21 steps before step 3 are recorded and finite: a replay needs 8": ["r", "--at", "3:3"],
    "No collector answers at http://127.0.0.1:9": ["r/1", "--url", "http://127.0.0.1:9"],
    "url='nonsense' is not the address": ["r/1", "--url", "nonsense"],
}


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short")
    train(replace(recipe(folder), steps=5), Job(directory=folder, run_id="r", mode="offline", quiet=True))
    return folder


@pytest.mark.parametrize("sentence", MISTAKES)
def test_what_cannot_be_replayed_is_reported_in_one_sentence_with_exit_code_2(
    short_run: Path, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOSSGUARD_URL", "LOSSGUARD_DIR"):
        monkeypatch.delenv(name, raising=False)
    done = CliRunner().invoke(app, ["replay", *MISTAKES[sentence], "--out", str(short_run)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_replay_under_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(app, ["replay", "r", "--at", "3:3"])
    assert (done.exit_code, done.stderr) == (2, "A replay runs in one process: start it without torchrun.\n")


def test_a_run_of_several_processes_is_refused(short_run: Path) -> None:
    record = read_record(run_folder(short_run, "r"), step=3)
    many = replace(record, config={**record.config, "ranks": 2})
    with pytest.raises(UsageError, match="The run was trained by 2 processes: only runs of one process can be"):
        replay(incident_at("r", "3:3"), many, report=lambda _: None)


@pytest.mark.slow
def test_a_missing_checkpoint_and_missing_data_are_reported(tmp_path: Path) -> None:
    trained(tmp_path, "nan_gradient@130")
    text = tmp_path / "text.txt"
    content = text.read_bytes()
    text.unlink()
    with pytest.raises(UsageError, match="There is no data at"):
        replayed(tmp_path, "130:130")
    text.write_bytes(content[:-200])
    with pytest.raises(UsageError, match="the number of training windows in the data was"):
        replayed(tmp_path, "130:130")
    shutil.rmtree(tmp_path / "trainer" / "r" / "checkpoints")
    with pytest.raises(UsageError, match=r"No checkpoint of run r at or before step 130 .* Available steps: none"):
        replayed(tmp_path, "130:130")


@pytest.mark.slow
def test_the_verdict_on_an_incident_that_was_rolled_back_reaches_the_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state in which the incident began was discarded with its branch, and is still there for the replay."""
    monkeypatch.delenv("LOSSGUARD_TOKEN", raising=False)
    with run_collector(tmp_path) as client:
        faults = [parse_fault("nan_gradient@130")]
        job = Job(directory=tmp_path, run_id="r", mode="online", url=client.url, quiet=True, faults=faults)
        train(recipe(tmp_path), replace(job, on_step=waits_for_an_order(135, monkeypatch)))
        (order,) = client.get("/runs/r")["orders"]
        number = next(each["number"] for each in client.get("/runs/r/incidents") if each["kind"] == "nonfinite")
        arguments = ["replay", f"r/{number}", "--out", str(tmp_path), "--url", client.url]
        unwritten = CliRunner().invoke(app, [*arguments, "--no-write", "--json"])
        assert client.get(f"/runs/r/incidents/{number}")["verdict"] is None
        done = CliRunner().invoke(app, arguments)
        incident = client.get(f"/runs/r/incidents/{number}")
        missing = CliRunner().invoke(app, ["replay", "r/77", "--out", str(tmp_path), "--url", client.url])
    printed = json.loads(unwritten.stdout)
    assert (unwritten.exit_code, done.exit_code) == (0, 0), done.output
    assert f"r/{number}: hardware" in done.stdout
    assert (printed["incident"], printed["cause"], incident["verdict"]["cause"]) == (
        f"r/{number}",
        "hardware",
        "hardware",
    )
    assert incident["verdict"]["evidence"] == printed["evidence"]
    assert order["rewound_to"] < incident["onset_step"]
    assert incident["onset_step"] - 20 < printed["evidence"]["first_step"]
    assert (missing.exit_code, "there is no incident 77" in missing.stderr) == (2, True)


@pytest.mark.slow
def test_an_update_that_the_gate_of_the_run_skipped_is_skipped_in_the_replay_too(tmp_path: Path) -> None:
    trained(tmp_path, "random_targets@130x3", gate=True)
    skipped = [step for step, metrics in logged(tmp_path, "r").items() if metrics.get("skipped")]
    record = read_record(run_folder(tmp_path, "r"), step=130)
    recorded = record.between(120, 142)
    assert skipped == [130, 131, 132]
    assert Rerun(record).train(120, [step.batch for step in recorded]) == recorded


def test_a_replay_has_the_curriculum_of_the_run(tmp_path: Path) -> None:
    easy = replace(recipe(tmp_path), data=replace(recipe(tmp_path).data, easy_first=True))
    (run, _), (again, _) = open_batches(easy), open_batches(recipe_of_replay(easy, sys.maxsize))
    assert all(run[index].inputs_BT.equal(again[index].inputs_BT) for index in (0, 7, 141, 150))


@given(st.data())
def test_every_stretch_of_culprits_is_found_with_few_replays(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 300))
    first = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(first + 1, length))
    asked = []

    def troubled(part: Sequence[int]) -> bool:
        asked.append(part)
        return any(1000 + first <= batch < 1000 + end for batch in part)

    found = bisect(range(1000, 1000 + length), troubled, first_end=first + 1)
    assert found == (1000 + first, 1000 + end)
    assert len(asked) <= 2 * length.bit_length()


def test_batches_that_do_it_only_together_are_both_within() -> None:
    assert bisect(range(50), lambda part: {7, 31} <= set(part), first_end=50) == (7, 32)


def test_the_padding_of_a_row_is_neither_counted_nor_shown() -> None:
    """Every token costs the same, so that a mean over padding would choose the longer row."""
    model = GPT(ModelConfig(layers=1, heads=1, width=8, context=4))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    inputs = torch.tensor([[97, 98, 0, 0], [97, 98, 99, 100]])
    targets = torch.tensor([[98, 99, PADDING, PADDING], [98, 99, 100, 101]])
    shown = excerpt(model, Batch(3, inputs, targets), Bytes())
    assert (shown.row, shown.inputs, shown.targets) == (0, "ab", "bc")
    assert math.isclose(shown.loss, math.log(256), rel_tol=1e-6)
