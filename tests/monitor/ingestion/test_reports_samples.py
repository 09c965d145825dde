"""Real loops and a collector: what is said of a rollback, by the samples that are trained after it."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lossguard import Guard
from lossguard.run.recording import RecordingRun
from lossguard.run.settings import Settings
from lossguard.torch import Checkpoints
from lossguard.vocabulary.protocol import API
from tests.monitor.client import AppClient, TestClient
from tests.waiting import eventually

pytestmark = pytest.mark.slow

SIZE, STEPS, BAD_AT = 16, 190, 60
NUM_SAMPLES = 8192

Draw = Callable[[Any], torch.Tensor]
"""Gives the samples of a step, by what the guard gives for it."""


class Samples:
    """Numbered samples of a linear function. One of them is corrupt: the first one of step BAD_AT."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(NUM_SAMPLES, 4, generator=generator)
        noise = 0.1 * torch.randn(NUM_SAMPLES, generator=generator)
        self.targets = self.inputs @ torch.tensor([1.0, -2.0, 0.5, 3.0]) + noise
        self.bad = -1
        self.num_bad = 0
        """How often it was trained on."""

    def loss(self, model: torch.nn.Module, step: int, numbers: torch.Tensor) -> torch.Tensor:
        """Over the samples of these `numbers`; NaN if the corrupt one is among them."""
        if step == BAD_AT and self.bad < 0:
            self.bad = int(numbers[0])
        is_bad = numbers == self.bad
        self.num_bad += int(is_bad.sum())
        targets = torch.where(is_bad, math.nan, self.targets[numbers])
        return torch.nn.functional.mse_loss(model(self.inputs[numbers]).squeeze(1), targets)


def train(http: TestClient, folder: Path, data: Any, draw: Draw) -> Samples:
    """A loop that waits where its loss is NaN until the collector has decided, and ends if it orders nothing more."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    checkpoints = Checkpoints(folder / "checkpoints", memory=20, memory_every=5, model=model, optimizer=optimizer)
    policy = {"mode": "auto", "when_structural": "continue"}
    registration = {"id": "r1", "project": "p", "started_at": time.time(), "capabilities": [], "policy": policy}
    samples, num_logged = Samples(), 0
    settings = Settings.read({"LOSSGUARD_HARDWARE": "off"})
    with RecordingRun(registration, folder / "r1", settings, client=AppClient(http)) as run:
        guard = Guard(run, checkpoints=checkpoints, every=50, signals=())
        for step, batch in guard.steps(data, until=STEPS):
            loss = samples.loss(model, step, draw(batch))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            run.log(step, loss=loss.item())
            num_logged += 1
            if not loss.isfinite():
                if "the run goes on" in reasons_once_stored(http, num_logged):
                    break
                assert eventually(lambda: bool(run.inbox.orders) or not has_open_order(http))
    return samples


def reasons_once_stored(http: TestClient, num_steps: int) -> str:
    """The reasons of the incidents, once the collector has so many steps."""
    assert eventually(lambda: http.get(f"{API}/runs/r1").json()["steps_consumed"] == num_steps)
    incidents = http.get(f"{API}/runs/r1/incidents").json()
    return " ".join(reason for each in incidents for reason in each["details"]["reasons"])


def has_open_order(http: TestClient) -> bool:
    return any(order["state"] == "open" for order in http.get(f"{API}/runs/r1").json()["orders"])


def interventions(http: TestClient) -> list[dict[str, Any]]:
    return list(http.get(f"{API}/runs/r1").json()["interventions"])


def test_a_skip_of_a_shuffled_loader_is_verified_and_no_skipped_sample_was_trained_again(
    http: TestClient, tmp_path: Path
) -> None:
    loader = DataLoader(TensorDataset(torch.arange(NUM_SAMPLES)), batch_size=SIZE, shuffle=True)
    samples = train(http, tmp_path, loader, lambda batch: batch[0])
    (rollback,) = interventions(http)
    assert (rollback["state"], rollback["details"]["compared"]) == ("verified", True)
    assert rollback["details"]["reasons"][-1].endswith("and no skipped sample was trained again.")
    assert samples.num_bad == 1


class Repeating:
    """Data that begins again after 80 batches, and does not say so."""

    def __getitem__(self, index: int) -> torch.Tensor:
        first = SIZE * (index % 80)
        return torch.arange(first, first + SIZE).unsqueeze(1)


def test_a_rollback_whose_skipped_sample_comes_again_is_never_verified(http: TestClient, tmp_path: Path) -> None:
    train(http, tmp_path, Repeating(), lambda batch: batch[:, 0])
    first, *_ = interventions(http)
    assert first["state"] == "recurred"
    assert "Skipped samples were trained again at step" in first["details"]["reasons"][-1]
