import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from lossguard import Skip
from lossguard.torch import checkpoints_in
from tests import object_store
from tests.lossguard.scripted import ScriptedRun, rollback
from tests.trainer.small import small_recipe
from tests.waiting import wait_for
from trainer.cli import app
from trainer.config import CheckpointConfig
from trainer.errors import UsageError
from trainer.faults import parse_fault
from trainer.process.checkpoint_place import checkpoint_place
from trainer.train import Job, train


def wait_until_uploaded() -> None:
    """An upload takes longer than some small steps."""

    def is_uploaded() -> bool:
        return all(thread.name != "lossguard-checkpoint" for thread in threading.enumerate())

    wait_for(is_uploaded, seconds=120, what="the upload ends")


def numbers_of(folder: Path, run: ScriptedRun, **job: Any) -> dict[int, Any]:
    """Step -> its last numbers, to the bit."""
    found = {}

    def note(step: int, batch: int, metrics: dict[str, float]) -> None:
        wait_until_uploaded()
        found[step] = batch, metrics["loss"].hex(), metrics["grad_norm"].hex(), metrics["log_z"].hex()

    folder.mkdir()
    plan = CheckpointConfig(every=5, memory=0)
    recipe = small_recipe(folder, steps=30, evaluate_every=0, probe_every=0, checkpoint=plan)
    model = train(recipe, Job(directory=folder, run=run, quiet=True, on_step=note, **job)).components.model
    return found | {-1: torch.nn.utils.parameters_to_vector(model.parameters()).tolist()}


@pytest.mark.parametrize("given", ["s3://", "s3:///", "gs://"])
def test_a_url_that_ends_with_its_scheme_is_no_place_and_no_folder_of_that_name(given: str) -> None:
    with pytest.raises(UsageError, match=f"'{given}' names no place"):
        checkpoint_place(given, Path("runs", "gpt", "night"))


def test_each_run_has_a_place_of_its_own_below_that_of_all_runs() -> None:
    folder = Path("runs", "gpt", "night")
    assert checkpoint_place(None, folder) is None
    assert checkpoint_place("s3://bucket/", folder) == "s3://bucket/gpt/night"
    assert checkpoint_place("/mnt/all", folder) == "/mnt/all/gpt/night"


@pytest.mark.slow(8)
@pytest.mark.needs("moto_server")
def test_a_run_with_checkpoints_in_an_object_store_gets_past_a_fault_bit_for_bit_and_can_be_replayed(
    object_store_server: object_store.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store_server.environment.items():
        monkeypatch.setenv(name, value)
    url = object_store_server.create_bucket("trainer")
    fault = [parse_fault("random_targets@17x3")]
    rolled = ScriptedRun({22: rollback(rewind_to=15, skip_from=15, skip_to=21)})
    never = ScriptedRun()
    never.history.skips.append(Skip(15, 21))
    here = numbers_of(tmp_path / "a", rolled, checkpoints=url, faults=fault)
    assert here == numbers_of(tmp_path / "b", never, faults=fault)
    assert [each[:2] for each in rolled.recorded] == [("start", 0), ("rollback", 15)]
    place = f"{url}/trainer/r"
    assert list(checkpoints_in(place)) == [0, 5, 10, 15, 20, 25, 30]
    assert not list((tmp_path / "a").rglob("*.pt")), "none is left on the disk"

    recipe = small_recipe(tmp_path, steps=45, evaluate_every=0, probe_every=0, checkpoint=CheckpointConfig(every=20))
    faults = [parse_fault("nan_gradient@40")]
    job = Job(directory=tmp_path / "c", run_id="night", mode="offline", quiet=True, faults=faults, checkpoints=url)
    train(recipe, replace(job, on_step=lambda *_: wait_until_uploaded()))
    arguments = ["replay", "night", "--at", "40:40", "--out", str(tmp_path / "c"), "--json"]
    verdict = CliRunner().invoke(app, arguments)
    assert verdict.stdout, verdict.stderr
    assert json.loads(verdict.stdout.splitlines()[-1])["cause"] == "hardware"

    small = ["run", "--set", "steps=1", "--set", "model.width=16", "--data", recipe.data.path]
    refused = CliRunner().invoke(app, [*small, "--out", str(tmp_path), "--checkpoints", "s3://missing/runs"])
    assert refused.exit_code == 2
    assert "checkpoints cannot be kept at s3://missing/runs/trainer/" in refused.stderr
    assert refused.stderr.count("\n") == 1
