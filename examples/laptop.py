"""What the examples of frameworks share: text, a tiny model, a planted fault, a collector, and a summary at the end."""

import os
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script in a folder does not see the checkout by itself

from demo.__main__ import show
from demo.report import read_report
from lossguard import Client
from lossguard_server.processes import Processes

CONTEXT = 64
"""Bytes of a sample."""
FAULT = range(200, 230)
"""Indices of the batches whose targets are shuffled."""


def text(num_samples: int) -> Tensor:
    """(num_samples, CONTEXT + 1) bytes of the source of Python's standard library, as int64."""
    content = bytearray()
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        content += file.read_bytes()
    rows = torch.frombuffer(content, dtype=torch.uint8).unfold(0, CONTEXT + 1, CONTEXT)[:num_samples]
    if len(rows) < num_samples:
        raise SystemExit(f"the standard library has only {len(rows)} samples of {CONTEXT + 1} bytes")
    return rows.long()


class TinyModel(nn.Module):
    """A causal transformer on bytes, with dropout: 0.1 M parameters."""

    def __init__(self, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 256)

    def forward(self, inputs_BT: Tensor) -> Tensor:
        """Logits (B, T, 256)."""
        length = inputs_BT.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.tokens(inputs_BT) + self.positions.weight[:length]
        logits: Tensor = self.head(self.blocks(hidden, mask=mask, is_causal=True))
        return logits


def loss_of(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Nats per byte."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def shuffled(targets_BT: Tensor) -> Tensor:
    """The same bytes in another order: what a broken part of the data looks like."""
    return targets_BT.flatten()[torch.randperm(targets_BT.numel())].view_as(targets_BT)


@contextmanager
def collector() -> Iterator[Path]:
    """A temporary folder, and a collector that this process reports to. Exits where none is installed."""
    if find_spec("uvicorn") is None:
        raise SystemExit(f"{sys.executable} has no collector: run the example with the checkout's .venv (make setup).")
    with tempfile.TemporaryDirectory() as name, Processes(Path(name, "logs")) as processes:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        store = {"LOSSGUARD_DATABASE_URL": f"sqlite:///{name}/lossguard.db"}
        processes.start("collector", "-m", "monitor", "serve", "--port", str(port), environment=store)
        processes.wait_until_up("collector", f"{url}/healthz")
        os.environ["LOSSGUARD_URL"] = url
        yield Path(name)


def summary(run_id: str) -> None:
    """Print what happened to the fault. Exits with 1 unless the run is past it."""
    with Client(os.environ["LOSSGUARD_URL"]) as client:
        report = read_report(client, run_id)
    show(report)
    if not report.verified:
        raise SystemExit(1)
