"""Lossguard's SDK: report a training run step by step, and let it be rolled back past loss spikes.

run = lossguard.init(project="gpt-small", config=config)
guard = lossguard.Guard(run, checkpoints=Checkpoints(f"out/{run.id}", model=model, optimizer=optimizer), every=50)
for step, batch in guard.steps(batches, until=10_000):
    ...
    run.log(step, loss=loss, grad_norm=norm, log_z=log_z, lr=lr)
run.finish()
"""

import importlib
from typing import Any

from lossguard.batches import Indexable
from lossguard.delivery.client import Client
from lossguard.errors import (
    CheckpointError,
    CheckpointMismatch,
    CollectorError,
    ConfigurationError,
    Conflict,
    LossguardError,
    NotFound,
    RanksError,
    Rejected,
    Unauthorised,
    Unreachable,
)
from lossguard.guard import Guard
from lossguard.ledger import Ledger, Skip
from lossguard.orders import Order
from lossguard.probe import Probe
from lossguard.protocol import decode_number, encode_number, is_run_id
from lossguard.ranks import Ranks
from lossguard.restart_plan import RestartPlan, restart
from lossguard.run import Run
from lossguard.spooling.reading import read_spools
from lossguard.start import init
from lossguard.states import Cause, OrderKind, RunState, SegmentReason

__all__ = [
    "Cause",
    "CheckpointError",
    "CheckpointMismatch",
    "Client",
    "CollectorError",
    "ConfigurationError",
    "Conflict",
    "Guard",
    "Indexable",
    "Ledger",
    "LossguardError",
    "NotFound",
    "Order",
    "OrderKind",
    "Probe",
    "Ranks",
    "RanksError",
    "Rejected",
    "RestartPlan",
    "Run",
    "RunState",
    "SegmentReason",
    "Skip",
    "Unauthorised",
    "Unreachable",
    "decode_number",
    "encode_number",
    "init",
    "is_run_id",
    "read_spools",
    "restart",
]


def __getattr__(name: str) -> Any:
    """What needs more than the SDK itself is imported when it is used: `lossguard.hf.guard(..)`."""
    if name in ("accelerate", "hf", "lightning", "torch"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
