import math
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from lossguard.sources.readers.event_records import (
    CHUNK,
    FOOTER_BYTES,
    HEADER,
    MAX_RECORD,
    EventFile,
    config_of,
    scalar_of,
    text_of,
)
from tests.lossguard.sources.readers.hostile import event_file, event_header

pytest.importorskip("tensorboard")


def value(**tensor: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

    return Summary.Value(tag="t", tensor=TensorProto(**tensor))


FLOAT, DOUBLE, INT32, STRING, INT64, BFLOAT16, HALF = 1, 2, 3, 7, 9, 14, 19


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": FLOAT, "float_val": [2.5]},
        {"dtype": DOUBLE, "double_val": [2.5]},
        {"dtype": HALF, "half_val": [0x4100]},
        {"dtype": BFLOAT16, "half_val": [0x4020]},
        {"dtype": FLOAT, "tensor_content": struct.pack("<f", 2.5)},
        {"dtype": DOUBLE, "tensor_content": struct.pack("<d", 2.5)},
        {"dtype": HALF, "tensor_content": struct.pack("<e", 2.5)},
        {"dtype": BFLOAT16, "tensor_content": b"\x20\x40"},
    ],
)
def test_a_scalar_is_read_from_every_kind_of_tensor(tensor: dict[str, Any]) -> None:
    assert scalar_of(value(**tensor)) == 2.5


def test_whole_numbers_and_nan_are_scalars_and_texts_and_vectors_are_none() -> None:
    assert scalar_of(value(dtype=INT64, int64_val=[3])) == 3.0
    text, two = value(dtype=STRING, string_val=[b"text"]), value(dtype=FLOAT, float_val=[1.0, 2.0])
    assert (scalar_of(text), text_of(text), scalar_of(two), text_of(two)) == (None, "text", None, None)
    assert scalar_of(value(dtype=INT32, tensor_content=struct.pack("<i", -3))) == -3.0
    nan = scalar_of(value(dtype=FLOAT, float_val=[math.nan]))
    assert nan is not None
    assert math.isnan(nan)


def test_a_record_counts_once_all_its_bytes_are_there(tmp_path: Path) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    whole = tmp_path / "whole"
    with whole.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(b"one")
        writer.write(b"three")
    data = whole.read_bytes()
    for size in range(len(data) + 1):
        path = tmp_path / f"cut-{size}"
        path.write_bytes(data[:size])
        events = EventFile(path)
        found = [record for *_, record in events.records()]
        assert found == [b"one", b"three"][: (size >= 19) + (size >= len(data))]
        assert not events.is_damaged


def test_a_record_that_is_too_long_is_passed_over_without_being_read(tmp_path: Path) -> None:
    path, length = tmp_path / "tfevents", 1 << 30
    with path.open("wb") as file:
        file.write(event_file() + event_header(length))
        file.seek(length + FOOTER_BYTES, os.SEEK_CUR)  # a hole: it takes no space
        file.write(event_file())
    events = EventFile(path)
    assert len(list(events.records())) == 6
    assert (events.is_damaged, events.offset) == (False, path.stat().st_size)


@pytest.mark.parametrize("length", [MAX_RECORD, MAX_RECORD + 1, 1 << 60])
def test_the_end_of_a_record_is_waited_for_without_reading_on(tmp_path: Path, length: int) -> None:
    path = tmp_path / "tfevents"
    path.write_bytes(event_file() + event_header(length) + b"x" * 100)
    events = EventFile(path)
    assert len(list(events.records())) == 3
    assert (events.is_damaged, events.offset) == (False, len(event_file()))
    assert HEADER.size + MAX_RECORD + FOOTER_BYTES <= CHUNK  # the longest record fits


def test_a_configuration_that_is_nested_deeply_is_none(tmp_path: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    text = value(dtype=STRING, string_val=[b"[" * 100_000])
    text.metadata.CopyFrom(plugin)
    record = Event(wall_time=1.7e9, summary=Summary(value=[text])).SerializeToString()
    (tmp_path / "tfevents").write_bytes(event_header(len(record)) + record + b"abcd")
    assert config_of(tmp_path) == {}
