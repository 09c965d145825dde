"""A run as a collector has it: its steps, incidents and costs as frames."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from lossguard.client import tables
from lossguard.client.frames import Frame, arrow_steps, csv_steps, has, table_of, table_of_columns

if TYPE_CHECKING:
    from lossguard.client.client import Client

Steps = tuple[int, int | None]
"""From the first step up to, and without, the second; None: no end."""


class StoredRun:
    """A run of a collector, read over its API: `lossguard.Client(url).run("RUN")`.

    Every method asks the collector once, and returns a pandas frame; where pandas is not installed, a dict of lists.
    With `pip install 'lossguard[frames]'` (pandas and pyarrow) the steps come as Arrow's record batches; without
    pyarrow as text, several times slower, and just as exact. Times are those of the trainer's clock, in UTC. A run that
    the collector does not know raises NotFound; see `lossguard.vocabulary.errors` for the other reasons.
    """

    def __init__(self, client: "Client", run_id: str) -> None:
        self.id = run_id
        self._client, self._path = client, f"/runs/{quote(run_id, safe='')}"

    def __repr__(self) -> str:
        return f"StoredRun({self.id!r}, {self._client.url!r})"

    def frame(
        self, metrics: str | Sequence[str] | None = None, *, steps: Steps | None = None, discarded: bool = False
    ) -> Frame:
        """The steps of the live line with these metrics (default: all), by `step`: `segment`, `live`, `time`, metrics.

        `steps`: only those from the first up to, and without, the second (None: no end). `discarded`: the discarded
        branches too, segment by segment; `live` tells them apart. A value that was not reported is NaN (None without
        pandas). NaN and infinities that were reported are themselves, and a column `<metric>_non_finite` tells them
        from missing ones. It is the frame of `db.frames.steps`. Raises NotFound for a metric that the run does not
        have, and Unreachable when the connection breaks: a part of a frame is never returned.
        """
        names = [metrics] if isinstance(metrics, str) else metrics
        if names is not None and not names:
            raise ValueError("metrics is empty: name at least one, or leave it out to get all")
        format, decode = ("arrow", arrow_steps) if has("pandas") and has("pyarrow") else ("csv", csv_steps)
        query = [("format", format), ("line", "all" if discarded else "live"), *_bounds(steps)]
        query += [("metrics", name) for name in names or ()]
        with self._client.stream(f"{self._path}/export?{urlencode(query)}") as stream:
            return decode(stream)

    def series(
        self, metric: str, *, points: int = 1500, steps: Steps | None = None, segment: int | None = None
    ) -> Frame:
        """A metric in at most about `points` buckets of exact values, as a chart draws it, `first_step` as index.

        It is that of the live line, or of a whole segment. `min`, `max`, `mean`, `first` and `last` are those of the
        finite values; `non_finite` counts the others.
        """
        query = [("metric", metric), ("points", points), *_bounds(steps)]
        query += [] if segment is None else [("segment", segment)]
        return table_of_columns(tables.SERIES, self._get(f"/series?{urlencode(query)}"))

    def incidents(self) -> Frame:
        """One row per incident, `number` as index; `score` is in units of the detector's scale."""
        return table_of(tables.INCIDENTS, self._get("/incidents"))

    def interventions(self) -> Frame:
        """One row per intervention, `number` as index, with the state and the answer of its order."""
        shown = self._get("")
        orders = {order["intervention"]: order for order in shown["orders"]}
        rows = []
        for each in shown["interventions"]:
            order = orders.get(each["number"], {})
            answer = {name: order.get(name) for name in ("rewound_to", "answered_at")}
            rows.append({**each, "order_state": order.get("state"), **answer})
        return table_of(tables.INTERVENTIONS, rows)

    def segments(self) -> Frame:
        """One row per segment, `number` as index; its steps [live_from, live_to) are on the live line."""
        return table_of(tables.SEGMENTS, self._get("")["segments"])

    def events(self) -> Frame:
        """One row per declared event and per outlier, in the order of arrival; `key` as index."""
        return table_of(tables.EVENTS, self._get("")["events"])

    def notes(self) -> Frame:
        """Return the notes of people about steps of the run, `id` as index."""
        return table_of(tables.NOTES, self._get("/notes"))

    def goodput(self) -> Frame:
        """Return the uses of the run's time, `cause` as index: `seconds`, and `share` of the whole (0 to 1)."""
        shown = self._get("/goodput")
        causes, seconds, total = list(shown["seconds"]), list(shown["seconds"].values()), shown["total_seconds"]
        shares = [each / total if total > 0 else None for each in seconds]
        return table_of_columns(tables.GOODPUT, {"cause": causes, "seconds": seconds, "share": shares})

    def costs(self) -> Frame:
        """Return the costs of each rewind by its new `segment`: discarded `steps`, their `tokens`, and `seconds`.

        These are the seconds until the run was back at the step of the new segment's first row. Two rewinds may share
        time, so their sum may be more than the run lost.
        """
        return table_of(tables.COSTS, self._get("/costs")["rewinds"])

    def _get(self, path: str) -> Any:
        return self._client.get(self._path + path)


def _bounds(steps: Steps | None) -> list[tuple[str, Any]]:
    """The query's first and last step, for the steps [first, end)."""
    if steps is None:
        return []
    first, end = steps
    if first < 0 or (end is not None and end <= first):
        raise ValueError(f"steps={steps!r} holds no step: give the first one, and the one after the last (or None)")
    return [("from", first), *([] if end is None else [("to", end - 1)])]
