"""What is known of runs, for Prometheus: read from the store at every scrape.

So it is right with several collectors (each tells the same; rules aggregate over `instance`) and after a restart. A run
is shown while it is running and goes when it ends; at most `limit` runs are shown, those heard of last. No scrape
changes anything: any number of scrapers see the same maxima.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import sqlalchemy as sa
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from db import live_runs
from db.dialects import DIALECTS
from db.engine import reading
from db.live_runs import LiveRun
from lossguard.states import IncidentKind
from monitor.detection.incidents.states import INTERVENTION_TERMINAL
from monitor.ingestion import run_status

RUN = ["run", "project"]
LINGER = 20.0
"""Seconds that an incident is shown after its end: else one that begins and ends between two scrapes is missed."""
WINDOW = f"in the last {run_status.PEAK_WINDOW:.0f} s or a little more; NaN when one was NaN"
VALUES = {
    "loss": ("lossguard_loss_nats", "Cross-entropy of the newest step, in nats per token"),
    "perplexity": ("lossguard_perplexity", "exp(loss) of the newest step"),
    "grad_norm": ("lossguard_grad_norm", "Global L2 norm of the gradient before clipping, newest step"),
    "log_z": ("lossguard_log_z_nats", "Mean log partition function of the newest step"),
    "lr": ("lossguard_learning_rate", "Learning rate of the newest step"),
    "tokens": ("lossguard_tokens", "Tokens seen so far on the live line"),
}
PEAKS = {
    "loss": ("lossguard_peak_loss_nats", f"Greatest cross-entropy of any step that came {WINDOW}"),
    "grad_norm": ("lossguard_peak_grad_norm", f"Greatest gradient norm of any step that came {WINDOW}"),
    "log_z": ("lossguard_peak_log_z_nats", f"Greatest mean log partition function of any step that came {WINDOW}"),
}


class RunsCollector(Collector):
    def __init__(self, engine: sa.Engine, *, limit: int, clock: Callable[[], float] = time.time) -> None:
        """`limit`: runs that are shown at most. `clock`: unix seconds, as the reports are stamped with."""
        self._engine, self._limit, self._clock = engine, limit, clock

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not ask the store."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """A store that does not answer is news too: `lossguard_database_up` says so, and the runs are missing."""
        try:
            with reading(self._engine) as session:
                families = list(self._families(session))
        except sa.exc.SQLAlchemyError:
            families = []
        up = "Whether the database answered this scrape"
        yield GaugeMetricFamily("lossguard_database_up", up, value=float(bool(families)))
        yield from families
        yield from disk(self._engine.url)

    def _families(self, session: Session) -> Iterator[Metric]:
        num_running = live_runs.num_running(session)
        runs = live_runs.running(session, limit=self._limit)
        yield GaugeMetricFamily("lossguard_running_runs", "Runs that have not ended", value=num_running)
        left_out = "Running runs that are not shown: see LOSSGUARD_MAX_RUNS_IN_METRICS"
        yield GaugeMetricFamily("lossguard_running_runs_left_out", left_out, value=num_running - len(runs))
        yield from _values(runs)
        yield from _peaks(runs, self._clock())
        yield from _pace(runs)
        yield from _totals(session, runs)
        yield from _incidents(session, runs, self._clock())
        yield from _interventions(session, runs)


def _gauge(name: str, text: str, runs: Sequence[tuple[LiveRun, float | None]]) -> Metric:
    """One gauge of runs, where there is a value. Runs are labelled here alone."""
    family = GaugeMetricFamily(name, text, labels=RUN)
    for run, value in runs:
        if value is not None:
            family.add_metric([run.id, run.project], value)
    return family


def _values(runs: Sequence[LiveRun]) -> Iterator[Metric]:
    for name, (metric, text) in VALUES.items():
        yield _gauge(metric, text, [(run, run_status.value(run.RunStatus, name)) for run in runs])


def _peaks(runs: Sequence[LiveRun], now: float) -> Iterator[Metric]:
    for name, (metric, text) in PEAKS.items():
        yield _gauge(metric, text, [(run, run_status.peak(run.RunStatus, name, now)) for run in runs])


def _pace(runs: Sequence[LiveRun]) -> Iterator[Metric]:
    beating = [(run, run.RunStatus) for run in runs]
    yield _gauge("lossguard_step", "Newest step", [(run, one.step) for run, one in beating])
    text = "When the collector last heard of the run: a heartbeat counts"
    yield _gauge("lossguard_last_report_timestamp_seconds", text, [(run, run.last_report_at) for run in runs])
    text = "When the collector took the newest step, or the run was registered: a heartbeat does not count"
    yield _gauge("lossguard_last_step_timestamp_seconds", text, [(run, one.last_step_at) for run, one in beating])
    text = "Until when the loop announced a pause (run.expect); absent without one"
    yield _gauge("lossguard_expected_by_timestamp_seconds", text, [(run, one.expected_by) for run, one in beating])
    text = "Median time of a step over the last reports"
    yield _gauge("lossguard_step_seconds", text, [(run, run_status.step_seconds(one)) for run, one in beating])
    text = "Tokens a second over the last reports"
    yield _gauge(
        "lossguard_tokens_per_second", text, [(run, run_status.tokens_per_second(one)) for run, one in beating]
    )
    text = "Bytes that wait in the trainer's spool, as it said with its last report"
    yield _gauge("lossguard_spool_bytes", text, [(run, one.undelivered_bytes) for run, one in beating])


def _totals(session: Session, runs: Sequence[LiveRun]) -> Iterator[Metric]:
    pks = [run.RunStatus.run_pk for run in runs]
    skipped, lost = live_runs.skipped_batches(session, run_pks=pks), live_runs.lost_steps(session, run_pks=pks)
    totals = {
        "nonfinite_steps": "Steps whose loss, gradient norm or log Z was not finite",
        "skipped_steps": "Steps that the optimizer did not take, where the loop logs skipped=1",
        "batches_skipped": "Batches that orders made the run skip",
        "steps_lost": "Optimizer steps on discarded branches",
    }
    families = {name: CounterMetricFamily(f"lossguard_{name}", text, labels=RUN) for name, text in totals.items()}
    for run in runs:
        labels, one = [run.id, run.project], run.RunStatus
        families["nonfinite_steps"].add_metric(labels, one.nonfinite_steps)
        families["skipped_steps"].add_metric(labels, one.skipped_steps)
        families["batches_skipped"].add_metric(labels, skipped.get(one.run_pk, 0))
        families["steps_lost"].add_metric(labels, lost.get(one.run_pk, 0))
    yield from families.values()


def _incidents(session: Session, runs: Sequence[LiveRun], now: float) -> Iterator[Metric]:
    """Counters begin at 0 for every kind: of a counter that appears with 1, Prometheus sees no increase."""
    by_pk = {run.RunStatus.run_pk: run for run in runs}
    over = CounterMetricFamily("lossguard_incidents_closed", "Incidents that are over, by kind", labels=[*RUN, "kind"])
    closed = live_runs.closed_incidents(session, run_pks=by_pk)
    for pk, run in by_pk.items():
        for kind in IncidentKind:
            over.add_metric([run.id, run.project, kind], closed.get((pk, kind), 0))
    text = f"Onset step of the newest incident of this kind and state, shown until {LINGER:.0f} s after its end"
    onset = GaugeMetricFamily("lossguard_incident_onset_step", text, labels=[*RUN, "kind", "state"])
    present = live_runs.incidents_since(session, run_pks=by_pk, time=now - LINGER)
    newest = {(one.run_pk, one.kind, one.state): one for one in present}
    for (pk, *of), incident in newest.items():
        onset.add_metric([by_pk[pk].id, by_pk[pk].project, *of], incident.onset_step)
    yield from (over, onset)


def _interventions(session: Session, runs: Sequence[LiveRun]) -> Iterator[Metric]:
    by_pk = {run.RunStatus.run_pk: run for run in runs}
    counts = live_runs.interventions(session, run_pks=by_pk)
    ended: Counter[tuple[int, str]] = Counter()
    for (pk, _, state), count in counts.items():
        ended[pk, state] += count
    over = CounterMetricFamily("lossguard_interventions", "Interventions by outcome", labels=[*RUN, "outcome"])
    for pk, run in by_pk.items():
        for outcome in sorted(INTERVENTION_TERMINAL):
            over.add_metric([run.id, run.project, outcome], ended[pk, outcome])
    pending = GaugeMetricFamily(
        "lossguard_interventions_pending", "Interventions whose outcome is open", labels=[*RUN, "kind", "state"]
    )
    for (pk, kind, state), count in counts.items():
        if state not in INTERVENTION_TERMINAL:
            pending.add_metric([by_pk[pk].id, by_pk[pk].project, kind, state], count)
    yield from (over, pending)


def disk(url: sa.URL) -> Iterator[Metric]:
    """The file system that holds an embedded store; a database server has an exporter of its own."""
    file = DIALECTS[url.get_backend_name()].store_file(url)
    if file is None:
        return
    usage = shutil.disk_usage(file.parent)
    yield GaugeMetricFamily("lossguard_disk_free_bytes", "Free space where the store lies", value=usage.free)
    yield GaugeMetricFamily("lossguard_disk_size_bytes", "Size of the file system where it lies", value=usage.total)
