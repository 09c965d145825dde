"""Prometheus metrics of runs, read from the store at every scrape.

They are correct with several collectors (all export the same; rules aggregate over `instance`) and after a restart. A
run is shown while it is running; at most `limit` runs are shown, those with the latest reports. A scrape changes
nothing: any number of scrapers see the same maxima.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import sqlalchemy as sa
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from db import live_runs
from db.dialects import DIALECTS
from db.engine import reading
from db.goodput.accounting import Breakdown
from db.live_runs import LiveRun
from lossguard.metrics import BY_NAME, SIGNALS
from lossguard.states import IncidentKind
from monitor.detection.incidents.states import INTERVENTION_TERMINAL
from monitor.ingestion import run_status
from monitor.telemetry import preflight_metrics
from monitor.telemetry.hardware_metrics import hardware_gauges
from monitor.telemetry.run_time import RunTimeCache

RUN_LABELS = ["run", "project"]
INCIDENT_LINGER_SECONDS = 20.0
"""For so long a closed incident is still shown: otherwise one between two scrapes would never be seen."""


class RunsCollector(Collector):
    """A prometheus_client collector over the store."""

    def __init__(self, engine: sa.Engine, *, limit: int, clock: Callable[[], float] = time.time) -> None:
        """`limit`: number of runs that are shown at most. `clock` returns unix seconds, as reports are stamped."""
        self._engine, self._limit, self._clock = engine, limit, clock
        self._run_time = RunTimeCache()

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not query the store."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """A store that does not answer shows as `lossguard_database_up` 0; the runs are missing then."""
        try:
            with reading(self._engine) as session:
                families = list(self._families(session))
        except sa.exc.SQLAlchemyError:
            families = []
        text = "Whether the database answered this scrape"
        yield GaugeMetricFamily("lossguard_database_up", text, value=float(bool(families)))
        yield from families
        yield from disk(self._engine.url)

    def _families(self, session: Session) -> Iterator[Metric]:
        num_running = live_runs.num_running(session)
        runs = live_runs.running(session, limit=self._limit)
        yield GaugeMetricFamily("lossguard_running_runs", "Runs that have not ended", value=num_running)
        text = "Running runs that are not shown, see LOSSGUARD_MAX_RUNS_IN_METRICS"
        yield GaugeMetricFamily("lossguard_running_runs_left_out", text, value=num_running - len(runs))
        yield from _values(runs)
        yield from _peaks(runs, self._clock())
        yield from _progress(runs)
        yield from _totals(session, runs)
        yield from _incidents(session, runs, self._clock())
        yield from _interventions(session, runs)
        yield from preflight_metrics.families(session, runs, self._clock())
        yield from _run_time(self._run_time.read(session, runs, self._clock()), runs)
        yield from hardware_gauges(session, runs, self._clock())


def _gauge(name: str, text: str, runs: Sequence[tuple[LiveRun, float | None]]) -> Metric:
    """A gauge with one sample for each run that has a value."""
    family = GaugeMetricFamily(name, text, labels=RUN_LABELS)
    for run, value in runs:
        if value is not None:
            family.add_metric([run.id, run.project], value)
    return family


def _values(runs: Sequence[LiveRun]) -> Iterator[Metric]:
    for name in run_status.GAUGES:
        metric = BY_NAME[name]
        text = f"{metric.gauge_help}; newest value"
        yield _gauge(metric.gauge, text, [(run, run_status.value(run.RunStatus, name)) for run in runs])


def _peaks(runs: Sequence[LiveRun], now: float) -> Iterator[Metric]:
    window = f"{run_status.PEAK_WINDOW_SECONDS:.0f} s or slightly longer"
    for name in SIGNALS:
        metric = BY_NAME[name]
        gauge = metric.gauge.replace("lossguard_", "lossguard_peak_", 1)
        text = f"{metric.gauge_help}; maximum over the last {window}, NaN if any value was NaN"
        yield _gauge(gauge, text, [(run, run_status.peak(run.RunStatus, name, now)) for run in runs])


def _progress(runs: Sequence[LiveRun]) -> Iterator[Metric]:
    statuses = [(run, run.RunStatus) for run in runs]
    yield _gauge("lossguard_step", "Newest step", [(run, status.step) for run, status in statuses])
    text = "When the last report of the run arrived, heartbeats included"
    yield _gauge("lossguard_last_report_timestamp_seconds", text, [(run, run.last_report_at) for run in runs])
    text = "When the newest step arrived, or the run was registered; heartbeats do not count"
    yield _gauge(
        "lossguard_last_step_timestamp_seconds", text, [(run, status.last_step_at) for run, status in statuses]
    )
    text = "End of the pause that the loop announced (run.expect); absent without one"
    yield _gauge(
        "lossguard_expected_by_timestamp_seconds", text, [(run, status.expected_by) for run, status in statuses]
    )
    text = "Median time per step over the last reports"
    yield _gauge("lossguard_step_seconds", text, [(run, run_status.step_seconds(status)) for run, status in statuses])
    text = "Tokens per second over the last reports"
    yield _gauge(
        "lossguard_tokens_per_second", text, [(run, run_status.tokens_per_second(status)) for run, status in statuses]
    )
    text = "Undelivered bytes in the trainer's spool, as of its last report"
    yield _gauge("lossguard_spool_bytes", text, [(run, status.undelivered_bytes) for run, status in statuses])


def _totals(session: Session, runs: Sequence[LiveRun]) -> Iterator[Metric]:
    pks = [run.RunStatus.run_pk for run in runs]
    skipped, lost = live_runs.skipped_batches(session, run_pks=pks), live_runs.lost_steps(session, run_pks=pks)
    totals = {
        "nonfinite_steps": "Steps with a non-finite loss, gradient norm or log Z",
        "skipped_steps": "Updates that the optimizer did not take: the gate's, or what the loop logs as skipped",
        "batches_skipped": "Batches that the run skipped by order",
        "steps_lost": "Optimizer steps on discarded branches",
    }
    families = {
        name: CounterMetricFamily(f"lossguard_{name}", text, labels=RUN_LABELS) for name, text in totals.items()
    }
    for run in runs:
        labels, status = [run.id, run.project], run.RunStatus
        families["nonfinite_steps"].add_metric(labels, status.nonfinite_steps)
        families["skipped_steps"].add_metric(labels, status.skipped_steps)
        families["batches_skipped"].add_metric(labels, skipped.get(status.run_pk, 0))
        families["steps_lost"].add_metric(labels, lost.get(status.run_pk, 0))
    yield from families.values()


def _incidents(session: Session, runs: Sequence[LiveRun], now: float) -> Iterator[Metric]:
    """Counters start at 0 for every kind: Prometheus sees no increase in a counter that appears with 1."""
    by_pk = {run.RunStatus.run_pk: run for run in runs}
    closed = CounterMetricFamily("lossguard_incidents_closed", "Closed incidents by kind", labels=[*RUN_LABELS, "kind"])
    num_closed = live_runs.closed_incidents(session, run_pks=by_pk)
    for pk, run in by_pk.items():
        for kind in IncidentKind:
            closed.add_metric([run.id, run.project, kind], num_closed.get((pk, kind), 0))
    text = f"Onset step of the newest incident by kind and state, until {INCIDENT_LINGER_SECONDS:.0f} s after its end"
    onset = GaugeMetricFamily("lossguard_incident_onset_step", text, labels=[*RUN_LABELS, "kind", "state"])
    shown = live_runs.incidents_since(session, run_pks=by_pk, time=now - INCIDENT_LINGER_SECONDS)
    newest = {(one.run_pk, one.kind, one.state): one for one in shown}
    for (pk, name, state), incident in newest.items():
        onset.add_metric([by_pk[pk].id, by_pk[pk].project, name, state], incident.onset_step)
    yield from (closed, onset)


def _interventions(session: Session, runs: Sequence[LiveRun]) -> Iterator[Metric]:
    by_pk = {run.RunStatus.run_pk: run for run in runs}
    counts = live_runs.interventions(session, run_pks=by_pk)
    num_ended: Counter[tuple[int, str]] = Counter()
    for (pk, _, state), count in counts.items():
        num_ended[pk, state] += count
    ended = CounterMetricFamily(
        "lossguard_interventions", "Completed interventions by outcome", labels=[*RUN_LABELS, "outcome"]
    )
    for pk, run in by_pk.items():
        for outcome in sorted(INTERVENTION_TERMINAL):
            ended.add_metric([run.id, run.project, outcome], num_ended[pk, outcome])
    pending = GaugeMetricFamily(
        "lossguard_interventions_pending", "Interventions without an outcome yet", labels=[*RUN_LABELS, "kind", "state"]
    )
    for (pk, kind, state), count in counts.items():
        if state not in INTERVENTION_TERMINAL:
            pending.add_metric([by_pk[pk].id, by_pk[pk].project, kind, state], count)
    yield from (ended, pending)


def _run_time(breakdowns: Mapping[int, Breakdown], runs: Sequence[LiveRun]) -> Iterator[Metric]:
    """A gauge: steps that a rollback discards move from one cause to another."""
    text = "Time since the start of the run by what it was used for; the share of the cause training is the goodput"
    family = GaugeMetricFamily("lossguard_run_time_seconds", text, labels=[*RUN_LABELS, "cause"])
    for run in runs:
        if (found := breakdowns.get(run.RunStatus.run_pk)) is not None:
            for cause, seconds in found.seconds.items():
                family.add_metric([run.id, run.project, cause], seconds)
    yield family


def disk(url: sa.URL) -> Iterator[Metric]:
    """The file system of an embedded store; a database server has its own exporter."""
    file = DIALECTS[url.get_backend_name()].store_file(url)
    if file is None:
        return
    usage = shutil.disk_usage(file.parent)
    yield GaugeMetricFamily("lossguard_disk_free_bytes", "Free space on the store's file system", value=usage.free)
    yield GaugeMetricFamily("lossguard_disk_size_bytes", "Size of the store's file system", value=usage.total)
