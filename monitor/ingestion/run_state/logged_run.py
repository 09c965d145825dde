"""State of the metrics of a run that an MLflow client logs: names, last values, segments, open rows.

It is stored with every call and read back from the store by a collector that has not seen the run before. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from lossguard.sources.names import SYSTEM_METRICS, NameMap
from lossguard.sources.recognition import Recognition
from lossguard.vocabulary.protocol import encode_number
from lossguard.vocabulary.source_facts import SourceFacts
from monitor.ingestion.open_rows import OpenRow, OpenRows, Scalar

MAX_SEGMENTS = 16
"""Segments whose beginnings are kept, for scalars that come late."""


class LoggedMetric(NamedTuple):
    """A value as an MLflow client logs it."""

    key: str
    value: float
    timestamp: int
    """Unix milliseconds."""
    step: int


@dataclass(slots=True)
class LoggedRun:
    rows: OpenRows = field(default_factory=OpenRows)
    latest: dict[str, LoggedMetric] = field(default_factory=dict)
    """The value with the highest step by the client's name; of several at that step, the one that was logged last."""
    source: Recognition = field(default_factory=Recognition)
    """Facts about how the rows are made. Only known ones are stored."""
    num_declared: int = 0
    """Number of times that these facts were declared."""
    unsettled: list[Scalar] = field(default_factory=list)
    """Inputs of the detection that came for step 0 after later steps. MLflow's default is step 0, so they may be
    results of the whole run, such as the final loss. If the steps go on from there, the loop has begun anew."""
    segments: list[tuple[int, float]] = field(default_factory=list)
    """(number, time of the first scalar) of the last segments, oldest first."""
    _names: NameMap = field(default_factory=NameMap)
    _name_groups: list[list[str]] = field(default_factory=list)  # in the order in which they came
    _keys: set[str] = field(default_factory=set)  # all of them

    def learn(self, keys: Iterable[str]) -> None:
        """Decide under which names new `keys`, which came together, are recorded."""
        new = sorted(set(keys) - self._keys)
        if new:
            self._keys.update(new)
            self._names.mapped(dict.fromkeys(new, 0.0))
            self._name_groups.append(new)

    def name_of(self, key: str) -> str:
        """The name that the client's `key` is recorded under."""
        return self._names.target_of(key)

    @property
    def num_names(self) -> int:
        return len(self._keys)

    def scalar(self, metric: LoggedMetric) -> Scalar:
        """The metric under the name and at the step that it is recorded under."""
        step = metric.step
        if metric.key.startswith(SYSTEM_METRICS):
            step = max(self.rows.reached.values(), default=0)
        return Scalar(self.name_of(metric.key), metric.value, metric.timestamp / 1000, step)

    def note_latest(self, metric: LoggedMetric) -> None:
        """Keep the metric if it is the newest of its key, as an MLflow server does."""
        known = self.latest.get(metric.key)
        if known is None or (metric.step, metric.timestamp) >= (known.step, known.timestamp):
            self.latest[metric.key] = metric

    def observe(self, rows: Sequence[OpenRow]) -> bool:
        """Take in complete rows: whether it is known better now how they are made."""
        changed = [self.source.observe(row.step, row.values.get("loss"), row.values) for row in rows]
        return any(changed)

    def segment_at(self, time: float) -> int | None:
        """The newest segment that had begun at `time`; None before the first one."""
        found = [number for number, begun in self.segments if begun <= time]
        return found[-1] if found else self.segments[0][0] if self.segments else None

    def begin_segment(self, number: int, time: float) -> None:
        """The segment was opened, with a first scalar that was logged at `time`."""
        self.segments = [*self.segments, (number, time)][-MAX_SEGMENTS:]
        self.rows.begin_segment()

    def to_json(self) -> dict[str, Any]:
        """Return the stored form: strict JSON."""
        latest = {key: [encode_number(one.value), one.timestamp, one.step] for key, one in self.latest.items()}
        names = self._name_groups
        declared = [self.num_declared, self.source.facts.to_details()]
        stored = {"rows": self.rows.to_json(), "latest": latest, "segments": self.segments, "names": names}
        unsettled = [[each.name, encode_number(each.value), each.time, each.step] for each in self.unsettled]
        return stored | {"source": declared, "unsettled": unsettled}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Undo `to_json`; `stored` is empty for a new run."""
        logged = cls()
        if stored:
            logged.rows = OpenRows.from_json(stored["rows"])
            for key, (value, timestamp, step) in stored["latest"].items():
                logged.latest[key] = LoggedMetric(key, float(value), timestamp, step)
            logged.segments = [(number, time) for number, time in stored["segments"]]
            for name, value, time, step in stored["unsettled"]:
                logged.unsettled.append(Scalar(name, float(value), time, step))
            logged.num_declared, details = stored["source"]
            logged.source = Recognition(SourceFacts.from_details(details))
            for group in stored["names"]:
                logged.learn(group)
        return logged
