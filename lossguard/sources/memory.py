"""A limit for the memory of this process while it reads what somebody else wrote.

A file says how large its parts are, and may lie: a page of a Parquet file is decompressed into as much memory as its
header asks for. The kernel refuses whatever grows beyond the limit. Only Linux counts the memory that is meant.
"""

import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_BYTES = 2**30
"""Memory that the import or the watch of a source may take, besides what the process has."""


@contextmanager
def limited(num_bytes: int) -> Iterator[None]:
    """Let the process take at most `num_bytes` more than it has now: whatever needs more raises MemoryError."""
    if sys.platform != "linux":
        yield
        return
    import resource  # Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    # What the kernel counts against the limit: the private writable memory of the process.
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    limit = pages * mmap.PAGESIZE + num_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
