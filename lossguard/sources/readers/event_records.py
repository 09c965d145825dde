"""The records of TensorBoard's event files, and the files that are one run."""

import json
import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lossguard.sources.files.source_files import files_below, lies_in, opened
from lossguard.sources.source_run import needed
from lossguard.vocabulary.errors import logger

# Records: TFRecord frames, each with an Event, parsed by `tensorboard`'s own classes.
#
# The frames are read here, because `EventFileLoader` computes checksums in Python and converts each event to the newest
# data format: it reads a fifteenth of the events per second. The length of a frame is checked by its checksum, which
# few values have; what follows must have one, and parse.

HEADER = struct.Struct("<QI")
"""Head of a frame: length of its data, and masked CRC-32C of these eight bytes. Four bytes follow the data."""
FOOTER_BYTES = 4
NO_FOOTER = b"\0" * FOOTER_BYTES
"""Footer of a file of which not all has arrived, as a network file system may show it."""
CHUNK = 5 << 20
"""Bytes that are read at once, more than a record has."""
MAX_RECORD = 4 << 20
"""Maximum bytes of a record that is read; a longer one, such as a graph, is passed over. Scalars are far smaller."""


@dataclass(slots=True)
class EventFile:
    """Reads on where the last call ended."""

    path: Path
    offset: int = 0
    is_damaged: bool = False
    """A frame cannot be read: nothing behind it can, unless the file changes."""
    unread: int = 0
    """Offset of the first record that nobody has taken yet; whoever takes them keeps it."""
    _signature: tuple[int, int] | None = None

    def records(self) -> Iterator[tuple[int, bytes, bytes]]:
        """(offset, header, serialized Event) of the records that are complete now and were not read before.

        Raises OSError when the file cannot be read.
        """
        stat = self.path.stat()
        if (signature := (stat.st_size, stat.st_mtime_ns)) == self._signature:
            return
        self._signature, self.is_damaged = signature, False
        with opened(self.path) as file:
            while data := os.pread(file.fileno(), CHUNK, self.offset):
                begin = self.offset
                yield from self._frames(data)
                if self.is_damaged or (self.offset == begin and not self._pass_over(data, stat.st_size)):
                    return

    def has_changed(self) -> bool:
        """Return True if the file has changed since its records were last read."""
        try:
            stat = self.path.stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) != self._signature

    def has_header(self, offset: int, header: bytes) -> bool:
        """Return True if a record with this header begins at `offset`."""
        with opened(self.path) as file:
            return os.pread(file.fileno(), HEADER.size, offset) == header

    def _pass_over(self, data: bytes, size: int) -> bool:
        """Skip the record at the offset if it is too long to be read; False while not all of it is there."""
        length = _length(data[: HEADER.size]) if len(data) >= HEADER.size else None
        end = self.offset + HEADER.size + (length or 0) + FOOTER_BYTES
        if length is None or length <= MAX_RECORD or end > size:
            return False
        self.offset = end
        return True

    def _frames(self, data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
        start, begin = self.offset, 0
        while (data_at := begin + HEADER.size) <= len(data):
            header = data[begin:data_at]
            if (length := _length(header)) is None:
                self.is_damaged = True
                return
            footer_at = data_at + length
            end = footer_at + FOOTER_BYTES
            if end > len(data):
                return  # it is being written, or reaches beyond what was read
            if data[footer_at:end] == NO_FOOTER:
                self.is_damaged = True
                return
            self.offset = start + end
            yield start + begin, header, data[data_at:footer_at]
            begin = end


@lru_cache(4096)
def _length(header: bytes) -> int | None:
    """The length that the header of a frame says; None if its checksum is wrong. Few lengths occur, so it is cached."""
    length: int
    length, checksum = HEADER.unpack(header)
    return length if _masked(_crc32c(header[:8])) == checksum else None


def _crc32c(data: bytes) -> int:
    """CRC with the polynomial of Castagnoli (RFC 3720, appendix B.4), bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    """Return a CRC as TFRecord files store it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def event_type() -> Any:
    """The class Event of `tensorboard`. Raises BadSource where it is not installed."""
    return needed("tensorboard.compat.proto.event_pb2", "tensorboard", "TensorBoard's event files").Event


_FLOAT, _DOUBLE, _INT32, _INT64, _BFLOAT16, _HALF = 1, 2, 3, 9, 14, 19
_STRUCTS = {_FLOAT: "<f", _DOUBLE: "<d", _INT32: "<i", _INT64: "<q", _HALF: "<e"}


def scalar_of(value: Any) -> float | None:
    """The scalar in a Summary.Value, in its old form (`simple_value`) or as a tensor; None if it is another thing."""
    if value.HasField("simple_value"):
        return value.simple_value  # type: ignore[no-any-return]
    if not value.HasField("tensor") or value.tensor.tensor_shape.dim:
        return None
    tensor = value.tensor
    content, kind = tensor.tensor_content, tensor.dtype
    if not content:
        for values in (tensor.float_val, tensor.double_val, tensor.int64_val, tensor.int_val):
            if len(values) == 1:
                return float(values[0])
        if len(tensor.half_val) != 1 or kind not in (_HALF, _BFLOAT16):
            return None
        content = struct.pack("<H", tensor.half_val[0])
    if kind == _BFLOAT16:  # the upper half of a float
        kind, content = _FLOAT, b"\0\0" + content
    layout = _STRUCTS.get(kind)
    if layout is None or struct.calcsize(layout) != len(content):
        return None
    return float(struct.unpack(layout, content)[0])


def text_of(value: Any) -> str | None:
    """The text in a Summary.Value of the text plugin; None if it is another thing."""
    strings = list(value.tensor.string_val) if value.HasField("tensor") else []
    return strings[0].decode("utf-8", "replace") if len(strings) == 1 else None


# Runs: the names of their event files, and the records at the beginning of these.

MAX_CONFIG_RECORDS = 64
"""Records at the beginning of a run, among which its configuration is."""

_NAME = re.compile(r".*tfevents\.(\d+)\.(.*)")


def is_event_file(path: Path) -> bool:
    return "tfevents" in path.name and not path.name.endswith("profile-empty")


def files_of(folder: Path) -> list[Path]:
    """The event files in a folder, in the order of their begin."""
    return sorted(filter(is_event_file, files_below(folder, deep=False)), key=begin_of)


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


def _first_events(folder: Path) -> Iterator[tuple[Any, int]]:
    """(event, bytes of its record) of the first records of each file."""
    parse = event_type().FromString
    for path in files_of(folder):
        try:
            for _, header, data in islice(EventFile(path).records(), MAX_CONFIG_RECORDS):
                yield parse(data), len(header) + len(data) + FOOTER_BYTES
        except Exception as problem:  # DecodeError or OSError: whoever reads the rows says so
            logger.debug("%s: %s", path, problem)


def has_scalar(event: Any) -> bool:
    """Return True if one of the values of an event is a scalar."""
    return any(scalar_of(value) is not None for value in event.summary.value)


def first_event(folder: Path) -> Any:
    """The first event with a scalar; None of a folder without."""
    return next((event for event, _ in _first_events(folder) if has_scalar(event)), None)


def config_of(folder: Path) -> dict[str, Any]:
    """The configuration that a run's files, or a folder of hyperparameters below it, hold: texts that are JSON, as
    Hugging Face Trainer writes them, and the hyperparameters of the HParams plugin."""
    config: dict[str, Any] = {}
    below = [
        each
        for each in sorted(folder.iterdir())
        if each.is_dir() and lies_in(each, folder) and files_of(each) and first_event(each) is None
    ]
    events = (event for each in [folder, *below] for event, _ in _first_events(each))
    for value in chain.from_iterable(event.summary.value for event in events):
        plugin = value.metadata.plugin_data
        if plugin.plugin_name == "hparams":
            config |= _hyperparameters(plugin.content)
        elif plugin.plugin_name == "text" and (text := text_of(value)) is not None:
            with suppress(ValueError, RecursionError):
                found = json.loads(text)
                if isinstance(found, dict):
                    config[value.tag.removesuffix("/text_summary")] = found
    return config


def _hyperparameters(content: bytes) -> dict[str, Any]:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = HParamsPluginData.FromString(content).session_start_info.hparams
    values = {name: getattr(value, value.WhichOneof("kind") or "null_value") for name, value in found.items()}
    return {name: value if isinstance(value, int | float | str) else None for name, value in values.items()}


def about_rows(folder: Path) -> int:
    """About how many steps with scalars the files hold, by the records at their beginning."""
    steps, num_read = set[int](), 0
    for event, size in _first_events(folder):  # one at a time: an event may hold an image
        num_read += size
        if has_scalar(event):
            steps.add(event.step)
    num_bytes = sum(path.stat().st_size for path in files_of(folder))
    return round(len(steps) * num_bytes / max(1, num_read))
