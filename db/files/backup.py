"""Back up a store into one file while collectors write to it."""

from pathlib import Path

from db.dialects import parse_url
from db.dialects.base import CannotBackUp as CannotBackUp
from db.store.engine import check_store


def backup(url: str, target: Path) -> int:
    """Write the store at `url` as one moment's state to the new file `target`: its size in bytes.

    Raises CannotBackUp, always for a server, which has its own program for it; and BadDatabaseUrl, NoStore.
    """
    dialect, parsed = parse_url(url)
    check_store(url)
    if dialect.is_file and target.exists():
        raise CannotBackUp(f"{target} exists; name another file, or move it away")
    dialect.back_up(parsed, target)
    return target.stat().st_size
