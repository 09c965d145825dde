"""Lossguard's SDK: report a training run step by step, and let it be rolled back past loss spikes.

run = lossguard.init(project="gpt-small", config=config)
checkpoints = Checkpoints(f"out/{run.id}", model=model, optimizer=optimizer, scheduler=scheduler)
guard = lossguard.Guard(run, checkpoints=checkpoints, every=50)
for step, batch in guard.steps(batches, until=10_000):
    ...
    run.log(step, loss=loss, grad_norm=norm, log_z=log_z, lr=lr)
run.finish()
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossguard.client.client import Client
    from lossguard.client.stored_run import StoredRun
    from lossguard.guard.data.source import Indexable
    from lossguard.guard.guard import Guard
    from lossguard.guard.restart_plan import RestartPlan, restart
    from lossguard.run.ranks import Ranks
    from lossguard.run.run import Run
    from lossguard.run.start import init
    from lossguard.spool.history import read_spools
    from lossguard.vocabulary.errors import (
        CheckpointError,
        CheckpointMismatch,
        CheckpointTooOld,
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
    from lossguard.vocabulary.limits import Limits
    from lossguard.vocabulary.orders import Ledger, Order, Skip
    from lossguard.vocabulary.protocol import decode_number, encode_number, is_run_id
    from lossguard.vocabulary.states import NOT_REPLAYED, Cause, OrderKind, RunState, SegmentReason
    from lossguard.vocabulary.wire import Probe
    from lossguard.vocabulary.wording import Estimate

__all__ = [
    "NOT_REPLAYED",
    "Cause",
    "CheckpointError",
    "CheckpointMismatch",
    "CheckpointTooOld",
    "Client",
    "CollectorError",
    "ConfigurationError",
    "Conflict",
    "Estimate",
    "Guard",
    "Indexable",
    "Ledger",
    "Limits",
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
    "StoredRun",
    "Unauthorised",
    "Unreachable",
    "decode_number",
    "encode_number",
    "init",
    "is_run_id",
    "read_spools",
    "restart",
]

_NAMES_OF = {
    "client.client": ("Client",),
    "client.stored_run": ("StoredRun",),
    "guard.data.source": ("Indexable",),
    "guard.guard": ("Guard",),
    "guard.restart_plan": ("RestartPlan", "restart"),
    "run.ranks": ("Ranks",),
    "run.run": ("Run",),
    "run.start": ("init",),
    "spool.history": ("read_spools",),
    "vocabulary.limits": ("Limits",),
    "vocabulary.orders": ("Ledger", "Order", "Skip"),
    "vocabulary.protocol": ("decode_number", "encode_number", "is_run_id"),
    "vocabulary.states": ("NOT_REPLAYED", "Cause", "OrderKind", "RunState", "SegmentReason"),
    "vocabulary.wire": ("Probe",),
    "vocabulary.wording": ("Estimate",),
}
"""The exported names by the module that defines them; the others are exceptions. It is imported when one of them is
first used, because a command or a hook that needs none of them must not wait for the HTTP client."""
_MODULE_OF = dict.fromkeys(__all__, "vocabulary.errors")
_MODULE_OF |= {name: module for module, names in _NAMES_OF.items() for name in names}


def __getattr__(name: str) -> Any:
    """An exported name, or a module of the package: `lossguard.hf.guard(..)`."""
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as problem:
        if problem.name != f"{__name__}.{name}":
            raise  # the package that this module needs is not installed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
