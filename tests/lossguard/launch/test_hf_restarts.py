"""The Trainer of transformers, as it is, under a launcher that restarts it, and a collector as a user starts it."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lossguard import Client, CollectorError, Ledger, Skip
from tests.fork_server import WarmProcesses
from tests.lossguard.launch.hf_script import BATCH, SAMPLES, order_of
from tests.ports import free_port
from tests.waiting import wait_for

pytestmark = pytest.mark.system

SCRIPT = str(Path(__file__).with_name("hf_script.py"))
STEPS, BAD = 250, (160, 176)
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def rows(path: Path) -> dict[int, Any]:
    """The last word of a trace about each step: the contents of its batch, and its loss."""
    return {line[0]: line[1:] for line in map(json.loads, path.read_text().splitlines())}


def is_verified_soon(client: Client) -> bool:
    """Once the run is known: a rollback counts as verified after 20 steps, so that the test is short."""
    try:
        client.request("PUT", "/runs/r/policy", {"mode": "auto", "name": "adaptive", "verify_steps": 20})
    except CollectorError:
        return False
    return True


def watched(folder: Path) -> dict[str, Any]:
    """The run, as the collector has it when the command has ended."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    variables = {"LOSSGUARD_URL": url, "LOSSGUARD_DIR": str(folder / "lossguard"), **QUIET}
    train = [sys.executable, SCRIPT, "--save", "20", "--bad", *map(str, BAD), "--report", "tensorboard"]
    train += ["--pause", "0.04", "--wait-at", "220"]  # or it may be over before the order comes
    train += ["--steps", str(STEPS), "--output_dir", str(folder / "out"), "--trace", str(folder / "restarted.jsonl")]
    options = ["--run-id", "r", "--project", "p", "--restart-with", "hf"]
    with WarmProcesses(folder) as processes:
        database = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{folder}/collector.db"}
        processes.start("collector", "-m", "monitor", "serve", "--port", str(port), environment=database)
        processes.wait_until_up("collector", f"{url}/healthz")
        launcher = processes.start(
            "launcher", "-m", "lossguard", "launch", *options, "--", *train, environment=variables
        )
        with Client(url) as client:
            wait_for(partial(is_verified_soon, client), seconds=120, what="the run at the collector")
        assert launcher.wait(timeout=240) == 0, processes.log_of("launcher").read_text()[-4000:]
        with Client(url) as client:
            run: dict[str, Any] = client.get("/runs/r")
            return run


def plain(folder: Path, skip: Skip) -> None:
    """An uninterrupted Trainer on the same data, with a loader of our own that leaves the batches out."""
    ledger, per_epoch = Ledger([skip]), SAMPLES // BATCH
    epochs = [order_of(epoch) for epoch in range(1 + ledger.nth_free(STEPS) // per_epoch)]
    places = [divmod(ledger.nth_free(step), per_epoch) for step in range(STEPS)]
    batches = [epochs[epoch][place * BATCH : (place + 1) * BATCH] for epoch, place in places]
    (folder / "order.json").write_text(json.dumps(batches))
    train = [sys.executable, SCRIPT, "--save", "10000", "--order", str(folder / "order.json"), "--steps", str(STEPS)]
    train += ["--bad", *map(str, BAD), "--output_dir", str(folder / "plain"), "--trace", str(folder / "plain.jsonl")]
    subprocess.run(train, env=os.environ | QUIET, check=True, capture_output=True, timeout=240)


def test_a_trainer_is_rolled_back_past_bad_batches_and_trains_as_if_they_had_never_been_there(tmp_path: Path) -> None:
    run = watched(tmp_path)
    assert run["state"] == "finished"
    assert [each["reason"] for each in run["segments"]] == ["start", "rollback"]
    assert [each["state"] for each in run["interventions"]] == ["verified"]
    assert "recomputed steps, from step" in " ".join(run["interventions"][0]["details"]["reasons"])
    (skip,) = [Skip(each["skip_from"], each["skip_to"]) for each in run["skip_ledger"]]
    assert (skip.skip_from, skip.skip_to) >= (BAD[0] - 1, BAD[1])
    plain(tmp_path, skip)
    assert rows(tmp_path / "restarted.jsonl") == rows(tmp_path / "plain.jsonl")
    weights = [(tmp_path / f"{name}.weights").read_text() for name in ("restarted", "plain")]
    assert weights[0] == weights[1]
