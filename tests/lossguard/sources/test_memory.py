"""While a file of somebody else is read, the process takes only so much memory, whatever the file asks for."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts this memory")

READS_TOO_MUCH = """
import pyarrow as pa
from lossguard.sources import memory

MIB = 2**20
pa.allocate_buffer(1)  # Arrow reserves 1 GiB
with memory.limited(48 * MIB):
    kept = bytearray(8 * MIB)
    for allocate in (lambda: bytearray(64 * MIB), lambda: pa.allocate_buffer(4096 * MIB)):
        try:
            allocate()
        except MemoryError:
            print("refused")
    kept.extend(b"more")
print(len(bytearray(64 * MIB)) == 64 * MIB)
"""


@pytest.mark.slow
def test_what_needs_more_memory_than_allowed_raises_and_the_rest_goes_on() -> None:
    """In a process of its own: what other tests have allocated and freed could be used again."""
    done = subprocess.run([sys.executable, "-c", READS_TOO_MUCH], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", "refused", "True"]
