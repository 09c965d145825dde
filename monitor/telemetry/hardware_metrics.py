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
ERROR_SECONDS = 300.0
"""For so long an error is shown: between two scrapes, nobody would see it."""


def hardware_gauges(session: Session, runs: Sequence[LiveRun], now: float) -> Iterator[Metric]:
    """A gauge for each value that Lossguard knows, with one sample for each device that has it.

    Those of errors count what happened in the last ERROR_SECONDS.
    """
    by_pk = {run.RunStatus.run_pk: run for run in runs}
    newest = hardware.newest(session, run_pks=by_pk, since=now - FRESH_SECONDS)
    errors = hardware.num_errors_since(session, run_pks=by_pk, since=now - ERROR_SECONDS)
    for value in VALUES:
        text = (
            f"{value.title}; over the last {ERROR_SECONDS:.0f} s" if value.is_error else f"{value.title}; newest value"
        )
        family = GaugeMetricFamily(value.gauge, text, labels=LABELS)
        for sample in newest:
            shown = sample.readings | errors.get((sample.run_pk, sample.host, sample.device), {})
            if value.name in sample.readings:
                run = by_pk[sample.run_pk]
                family.add_metric([run.id, run.project, sample.host, sample.device], shown[value.name])
        yield family
