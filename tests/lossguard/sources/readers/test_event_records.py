import math
import struct
from pathlib import Path
from typing import Any

import pytest

from lossguard.sources.readers.event_records import EventFile, scalar_of, text_of

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


def test_whole_numbers_and_nan_are_scalars_too() -> None:
    assert scalar_of(value(dtype=INT64, int64_val=[3])) == 3.0
    assert scalar_of(value(dtype=INT32, tensor_content=struct.pack("<i", -3))) == -3.0
    nan = scalar_of(value(dtype=FLOAT, float_val=[math.nan]))
    assert nan is not None
    assert math.isnan(nan)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": STRING, "string_val": [b"text"]},
        {"dtype": FLOAT, "float_val": [1.0, 2.0]},
        {"dtype": FLOAT, "float_val": [1.0], "tensor_shape": {"dim": [{"size": 1}]}},
        {"dtype": FLOAT, "tensor_content": b"\0\0\0\0\0\0\0\0"},
        {"dtype": FLOAT},
    ],
)
def test_other_values_are_none(tensor: dict[str, Any]) -> None:
    assert scalar_of(value(**tensor)) is None


def test_a_text_is_no_scalar() -> None:
    assert text_of(value(dtype=STRING, string_val=[b"text"])) == "text"
    assert text_of(value(dtype=FLOAT, float_val=[1.0])) is None


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
