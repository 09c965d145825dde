"""While a file of somebody else is read, the process takes only so much memory, whatever the file asks for."""

import sys

import pyarrow as pa
import pytest

from db.files import memory

MIB = 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts this memory")


def test_what_needs_more_memory_than_allowed_raises_and_the_rest_goes_on() -> None:
    with memory.limited(48 * MIB):
        kept = bytearray(8 * MIB)
        with pytest.raises(MemoryError):
            bytearray(64 * MIB)
        with pytest.raises(MemoryError):
            pa.allocate_buffer(4096 * MIB)  # more than Arrow has reserved
        kept.extend(b"more")
    assert len(bytearray(64 * MIB)) == 64 * MIB
