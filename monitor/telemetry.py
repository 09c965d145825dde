"""The collector's metrics for Prometheus.

What concerns runs is read from the store at every scrape: so it is right with several collectors and after a restart,
and a run's labels go when it ends. What concerns this process is counted here.
"""

import math
from collections.abc import Iterator

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from db import queries
from db.engine import reading
from db.models import Incident, Intervention, Run, SkippedBatches
from db.step_rows import metric_value
from lossguard.protocol import RunState
from monitor.ingest import Receipt

RUN_LABELS = ["run", "project"]
GAUGES = {
    "loss": ("lossguard_loss_nats", "Cross-entropy of the newest step, in nats per token"),
    "perplexity": ("lossguard_perplexity", "exp(loss) of the newest step"),
    "grad_norm": ("lossguard_grad_norm", "Global L2 norm of the gradient before clipping, newest step"),
    "log_z": ("lossguard_log_z_nats", "Mean log partition function of the newest step"),
    "lr": ("lossguard_learning_rate", "Learning rate of the newest step"),
    "tokens": ("lossguard_tokens", "Tokens seen so far"),
}


class Counters:
    """What this process has done since it started."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reports = Counter("lossguard_reports", "Reports taken", registry=registry)
        self.steps = Counter("lossguard_steps", "Steps stored", registry=registry)
        self.duplicates = Counter("lossguard_duplicate_steps", "Steps that were stored already", registry=registry)

    def count_report(self, receipt: Receipt) -> None:
        self.reports.inc()
        self.steps.inc(receipt.accepted)
        self.duplicates.inc(receipt.duplicates)


class RunsCollector(Collector):
    """The state of the live runs, and counts of incidents and interventions, as the store has them."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not ask the store."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        with reading(self._engine) as session:
            live = [run for run in queries.runs(session) if run.state == RunState.RUNNING]
            yield from _run_gauges(session, live)
            yield _tally(session, Incident.kind, "lossguard_incidents", "Incidents by kind", "kind")
            yield _tally(session, Intervention.state, "lossguard_interventions", "Interventions by state", "state")
            skipped = CounterMetricFamily("lossguard_batches_skipped", "Batches that orders made runs skip")
            total = sa.select(sa.func.coalesce(sa.func.sum(SkippedBatches.skip_to - SkippedBatches.skip_from), 0))
            skipped.add_metric([], float(session.scalar(total) or 0))
            yield skipped


def _run_gauges(session: Session, live: list[Run]) -> Iterator[Metric]:
    families = {name: GaugeMetricFamily(*text, labels=RUN_LABELS) for name, text in GAUGES.items()}
    step = GaugeMetricFamily("lossguard_step", "Newest step on the live line", labels=RUN_LABELS)
    heard = GaugeMetricFamily(
        "lossguard_last_report_timestamp_seconds", "When the collector last heard of the run", labels=RUN_LABELS
    )
    for run in live:
        labels = [run.id, run.project]
        heard.add_metric(labels, run.last_report_at)
        newest = queries.newest_step(session, run=run)
        if newest is None:
            continue
        step.add_metric(labels, newest.step)
        for name, family in families.items():
            value = metric_value(newest, name)
            if name == "perplexity" and value is None and (loss := metric_value(newest, "loss")) is not None:
                value = math.inf if loss > 700 else loss if not math.isfinite(loss) else math.exp(loss)
            if value is not None:
                family.add_metric(labels, value)
    yield from (*families.values(), step, heard)


def _tally(session: Session, column: sa.orm.InstrumentedAttribute[str], name: str, text: str, label: str) -> Metric:
    # Gauges, because they can fall: a grad spike becomes a loss spike when the loss follows, a proposal is approved.
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in session.execute(sa.select(column, sa.func.count()).group_by(column)):
        family.add_metric([value], count)
    return family
