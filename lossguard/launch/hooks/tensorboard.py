"""The hook on the SummaryWriter of torch.utils.tensorboard and of tensorboardX."""

import functools
import json
from importlib import import_module
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from .journal import Journal
from .tracker_log import TrackerLog, number, numbers, whole, wrap

CONFIGURATIONS = ("args", "model_config")
"""Tags of texts that hold a configuration as JSON, as the Hugging Face Trainer writes them."""


def hook(module: ModuleType, journal: Journal) -> None:
    """Wrap `add_scalar`, `add_scalars`, `add_text` and `add_hparams`."""
    tracker = "tensorboard" if module.__name__.startswith("torch.") else "tensorboardX"
    logs: WeakKeyDictionary[Any, TrackerLog] = WeakKeyDictionary()  # of each SummaryWriter

    def log_of(writer: Any) -> TrackerLog:
        if writer not in logs:
            folder = getattr(writer, "log_dir", None) or getattr(writer, "logdir", None) or ""
            logs[writer] = TrackerLog(tracker, journal, source=f"{tracker}:{folder}")
        return logs[writer]

    def record(writer: Any, values: dict[str, float], step: Any) -> None:
        if not values or not journal.is_written:
            return
        log, at = log_of(writer), whole(step) if step is not None else None
        if at is not None:
            log.scalars(at, values)
            return
        for tag, value in values.items():  # TensorBoard writes all of them at step 0
            log.scalars(log.count(tag), {tag: value})

    def add_scalar(writer: Any, tag: str, scalar_value: Any, global_step: Any = None, *_: Any, **__: Any) -> None:
        value = number(scalar_value)
        record(writer, {} if value is None else {tag: value}, global_step)

    def add_scalars(
        writer: Any, main_tag: str, tag_scalar_dict: dict[str, Any], global_step: Any = None, *_: Any, **__: Any
    ) -> None:
        record(writer, numbers(tag_scalar_dict, f"{main_tag}/"), global_step)

    def add_text(writer: Any, tag: str, text_string: Any, *_: Any, **__: Any) -> None:
        if tag in CONFIGURATIONS and isinstance(text_string, str) and journal.is_written:
            config = json.loads(text_string) if text_string.startswith("{") else None
            log_of(writer).describe(config=config if tag == "args" or config is None else {tag: config})

    wrap(module.SummaryWriter, "add_scalar", add_scalar)
    wrap(module.SummaryWriter, "add_scalars", add_scalars)
    wrap(module.SummaryWriter, "add_text", add_text)
    _hook_hparams(module, journal, TrackerLog(tracker, journal))


def _hook_hparams(module: ModuleType, journal: Journal, log: TrackerLog) -> None:
    """`hparams` makes the summaries of `add_hparams`, and of Lightning's logger, which takes it from its module.

    The metrics that `add_hparams` writes beside it are results, not a curve: they go to a writer of another folder.
    """
    summary = import_module(module.__name__.rpartition(".")[0] + ".summary")

    def hparams(hparam_dict: Any = None, *_: Any, **__: Any) -> None:
        if journal.is_written and isinstance(hparam_dict, dict) and hparam_dict:
            log.describe(config=hparam_dict)

    wrap(summary, "hparams", hparams)
    module.hparams = summary.hparams  # type: ignore[attr-defined]
    add_hparams = module.SummaryWriter.add_hparams

    @functools.wraps(add_hparams)
    def quiet(writer: Any, *arguments: Any, **named: Any) -> Any:
        inner = module.SummaryWriter
        plain = {"add_scalar": inner.add_scalar.__wrapped__}
        module.SummaryWriter = type(inner.__name__, (inner,), plain)  # type: ignore[attr-defined]
        try:
            return add_hparams(writer, *arguments, **named)
        finally:
            module.SummaryWriter = inner  # type: ignore[attr-defined]

    module.SummaryWriter.add_hparams = quiet
