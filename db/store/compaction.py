"""Give the space of deleted runs back to the file system, while collectors write."""

import sqlalchemy as sa

from db.dialects import dialect_of
from db.store import partitions


def num_bytes(engine: sa.Engine) -> int:
    """The size of the store, with what is free in it."""
    return dialect_of(engine).num_bytes(engine)


def compact(engine: sa.Engine, *, before: int, rewrite: bool = False) -> str:
    """Give back what can be given back without stopping reports: one sentence about it.

    `before`: the bytes of the store before anything was deleted. `rewrite`: on SQLite rewrite the whole file once,
    while reports wait; afterwards it shrinks without that.
    """
    dialect = dialect_of(engine)
    if dialect.has_partitions:
        partitions.compact(engine)
    note = dialect.vacuum(engine, rewrite=rewrite)
    after = num_bytes(engine)
    return f"the store takes {_size(after)}, {_size(max(0, before - after))} less than before{note}"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
