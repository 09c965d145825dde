"""What the event files of a run say of it: their names, and the records at their beginning."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lossguard.log_once import logger
from lossguard.sources.event_records import FOOTER_BYTES, HEADER, EventFile, event_type, scalar_of, text_of

MAX_CONFIG_RECORDS = 64
"""Records at the beginning of a run, among which its configuration is."""

_NAME = re.compile(r".*tfevents\.(\d+)\.(.*)")


def is_event_file(path: Path) -> bool:
    return "tfevents" in path.name and not path.name.endswith("profile-empty")


def files_of(folder: Path) -> list[Path]:
    """The event files in a folder, in the order of their begin."""
    return sorted((path for path in folder.iterdir() if is_event_file(path)), key=begin_of)


def begin_of(path: Path) -> tuple[int, str]:
    """When a file was begun, in unix seconds, by its name; then the name."""
    found = _NAME.fullmatch(path.name)
    return (int(found[1]) if found else 0, path.name)


def process_of(path: Path) -> str:
    """Host and process in the name of a file that PyTorch or TensorFlow has written; else the name."""
    found = _NAME.fullmatch(path.name)
    parts = found[2].rsplit(".", 2) if found else []
    return ".".join(parts[:2]) if len(parts) >= 3 else path.name


def host_of(path: Path) -> str | None:
    """The machine in the name of a file."""
    found = _NAME.fullmatch(path.name)
    return found[2].split(".")[0] if found else None


def _first_values(folder: Path) -> Iterator[tuple[Any, Any]]:
    """(event, value) of the first records of each file."""
    parse = event_type().FromString
    for path in files_of(folder):
        try:
            for _, _, data in islice(EventFile(path).records(), MAX_CONFIG_RECORDS):
                event = parse(data)
                for value in event.summary.value:
                    yield event, value
        except Exception as problem:  # DecodeError or OSError: whoever reads the rows says so
            logger.debug("%s: %s", path, problem)


def first_event(folder: Path) -> Any:
    """The first event with a scalar; None of a folder without."""
    return next((event for event, value in _first_values(folder) if scalar_of(value) is not None), None)


def config_of(folder: Path) -> dict[str, Any]:
    """The configuration that a run's files, or a folder of hyperparameters below it, hold: texts that are JSON, as
    Hugging Face Trainer writes them, and the hyperparameters of the HParams plugin."""
    config: dict[str, Any] = {}
    below = [
        each for each in sorted(folder.iterdir()) if each.is_dir() and files_of(each) and first_event(each) is None
    ]
    for _, value in chain.from_iterable(map(_first_values, [folder, *below])):
        plugin = value.metadata.plugin_data
        if plugin.plugin_name == "hparams":
            config |= _hyperparameters(plugin.content)
        elif plugin.plugin_name == "text" and (text := text_of(value)) is not None:
            with suppress(ValueError):
                found = json.loads(text)
                if isinstance(found, dict):
                    config[value.tag.removesuffix("/text_summary")] = found
    return config


def _has_only_hyperparameters(folder: Path) -> bool:
    return bool(files_of(folder)) and first_event(folder) is None


def _hyperparameters(content: bytes) -> dict[str, Any]:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = HParamsPluginData.FromString(content).session_start_info.hparams
    values = {name: getattr(value, value.WhichOneof("kind") or "null_value") for name, value in found.items()}
    return {name: value if isinstance(value, int | float | str) else None for name, value in values.items()}


def about_rows(folder: Path) -> int:
    """About how many steps with scalars the files hold, by the records at their beginning."""
    steps = [event.step for event, value in _first_values(folder) if scalar_of(value) is not None]
    num_bytes = sum(_bytes_of(path) for path in files_of(folder))
    return round(len(set(steps)) * sum(path.stat().st_size for path in files_of(folder)) / max(1, num_bytes))


def _bytes_of(path: Path) -> int:
    """Bytes of the records that `_first_values` reads."""
    file = EventFile(path)
    return sum(len(data) + HEADER.size + FOOTER_BYTES for *_, data in islice(file.records(), MAX_CONFIG_RECORDS))
