"""Lossguard's SDK: report a training run step by step, and let it be rolled back past loss spikes.

run = lossguard.init(project="gpt-small", config=config)
guard = lossguard.Guard(run, checkpoints=Checkpoints(f"out/{run.id}", model=model, optimizer=optimizer), every=50)
for step, batch in guard.steps(batches, until=10_000):
    ...
    run.log(step, loss=loss, grad_norm=norm, log_z=log_z, lr=lr)
run.finish()
"""

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
from lossguard.ranks import Ranks
from lossguard.run import Run
from lossguard.start import init
from lossguard.states import OrderKind, RunState, SegmentReason

__all__ = [
    "CheckpointError",
    "CheckpointMismatch",
    "Client",
    "CollectorError",
    "ConfigurationError",
    "Conflict",
    "Guard",
    "Ledger",
    "LossguardError",
    "NotFound",
    "Order",
    "OrderKind",
    "Ranks",
    "RanksError",
    "Rejected",
    "Run",
    "RunState",
    "SegmentReason",
    "Skip",
    "Unauthorised",
    "Unreachable",
    "init",
]
