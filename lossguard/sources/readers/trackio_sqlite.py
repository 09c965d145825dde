"""trackio's SQLite files: one for each project."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossguard.sources.columns import number_of, time_of
from lossguard.sources.files.sqlite_store import columns_of, opened, stores_in
from lossguard.sources.readers.jsonl_file import flat
from lossguard.sources.rows import Row, StoredScalar, joined
from lossguard.sources.source_run import SourceRun
from lossguard.vocabulary.source_facts import facts_of

WHAT = "trackio's SQLite files"
TABLES = {"metrics": ("id", "timestamp", "run_name", "step", "metrics"), "configs": ("run_name", "config")}
OWN_NAMES = "_"
"""Prefix of what trackio itself adds to a configuration."""


def runs_in(path: Path) -> Iterator[SourceRun]:
    for file in stores_in(path, TABLES):
        with opened(file) as store:
            # Older releases know a run by its name alone.
            key = "run_id" if "run_id" in columns_of(store, "metrics") else "run_name"
            configs = dict(store.execute(f"SELECT {key}, config FROM configs"))
            found = store.execute(
                f"SELECT {key}, max(run_name), min(timestamp), max(timestamp), count(*) FROM metrics"
                f" GROUP BY {key} ORDER BY min(id)"
            )
            for run, name, first, last, size in found.fetchall():
                config = _object(configs.get(run))
                yield SourceRun(
                    format="trackio",
                    identity=run if key == "run_id" else f"{file.stem}/{run}/{first}",
                    name=name,
                    place=f"{file}, run {name}",
                    rows=lambda file=file, key=key, run=run: _rows(file, key, run),  # type: ignore[misc]
                    project=file.stem,
                    config={name: value for name, value in config.items() if not name.startswith(OWN_NAMES)},
                    started_at=time_of(config.get("_Created")) or time_of(first),
                    ended_at=time_of(last),
                    facts=facts_of(config),
                    size=size,
                )


def _rows(path: Path, key: str, run: str) -> Iterator[Row]:
    with opened(path) as store:
        found = store.execute(f"SELECT timestamp, step, metrics FROM metrics WHERE {key} = ? ORDER BY id", (run,))
        yield from joined(
            StoredScalar(time_of(time) or 0.0, step, name, number)
            for time, step, text in found
            for name, value in flat(_object(text)).items()
            if (number := number_of(value)) is not None
        )


def _object(text: Any) -> dict[str, Any]:
    """The JSON of a cell; newer releases may keep it compressed, which is then read as nothing."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
