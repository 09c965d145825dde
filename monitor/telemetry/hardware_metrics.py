"""Prometheus metrics of the hardware of running runs: the newest sample of each device, while it is fresh."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy.orm import Session

from db import hardware
from db.live_runs import LiveRun
from lossguard.hardware.values import VALUES

LABELS = ["run", "project", "host", "device"]
FRESH_SECONDS = 120.0
"""An older sample says nothing about the present; a run that samples more rarely is not shown."""


def hardware_gauges(session: Session, runs: Sequence[LiveRun], now: float) -> Iterator[Metric]:
    """A gauge for each value that Lossguard knows, with one sample for each device that has it."""
    by_pk = {run.RunStatus.run_pk: run for run in runs}
    newest = hardware.newest(session, run_pks=by_pk, since=now - FRESH_SECONDS)
    for value in VALUES:
        family = GaugeMetricFamily(value.gauge, value.title, labels=LABELS)
        for sample in newest:
            if value.name in sample.readings:
                run = by_pk[sample.run_pk]
                family.add_metric([run.id, run.project, sample.host, sample.device], sample.readings[value.name])
        yield family
