"""A Prometheus metric of runs as text. What a run adds to it is kept and used again while it does not change.

prometheus_client makes an object of each sample and checks each name and label again at every scrape: with 2,000 runs
and their 80,000 samples that took 0.8 s of CPU time, most of it for counters that still stand at zero.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache

from prometheus_client.utils import floatToGoString as number_text


class FamilyType(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"


MAX_LABELS = 10_000
"""Labels that are kept as text."""
Sample = tuple[str, str, float | None]
"""Text before and after the labels of the run (in the order of their names), and the value; None: no sample."""
Samples = Sequence[Sample]


class RunFamily:
    """One metric with samples of many runs."""

    def __init__(self, name: str, text: str, kind: FamilyType) -> None:
        self._name = f"{name}_total" if kind is FamilyType.COUNTER else name
        self._head = f"# HELP {self._name} {_escaped(text)}\n# TYPE {self._name} {kind}\n"
        self._known: dict[str, tuple[Samples, str]] = {}

    def text(self, runs: Iterable[tuple[str, Samples]]) -> str:
        """The family with these samples of each run; a run is given as its labels (`run_labels`)."""
        kept, before = {}, self._known  # replaced as a whole: scrapes may overlap
        for labels, samples in runs:
            known = before.get(labels)
            if known is None or known[0] != samples:
                known = samples, self._lines(labels, samples)
            kept[labels] = known
        self._known = kept
        return self._head + "".join([lines for _, lines in kept.values()])

    def plain_text(self, runs: Iterable[tuple[str, float | None]]) -> str:
        """The family with one value of each run, without more labels. Most of these change with every report."""
        name = self._name
        lines = [f"{name}{{{labels}}} {number_text(value)}\n" for labels, value in runs if value is not None]  # type: ignore[no-untyped-call]
        return self._head + "".join(lines)

    def _lines(self, labels: str, samples: Samples) -> str:
        name = self._name
        return "".join(
            [
                f"{name}{{{before}{labels}{after}}} {number_text(value)}\n"  # type: ignore[no-untyped-call]
                for before, after, value in samples
                if value is not None
            ]
        )


def run_labels(run_id: str, project: str) -> str:
    """The labels of a run as they stand in each of its lines."""
    return f"{label('project', project)},{label('run', run_id)}"


@lru_cache(MAX_LABELS)
def label(name: str, value: str) -> str:
    escaped = _escaped(value).replace('"', r"\"")
    return f'{name}="{escaped}"'


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
