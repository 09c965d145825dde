"""Prometheus metrics of runs, read from the store at every scrape.

They are correct with several collectors (all export the same; rules aggregate over `instance`) and after a restart. A
run is shown while it is running; at most `limit` runs are shown, those with the latest reports. A scrape changes
nothing: any number of scrapers see the same maxima.
"""

import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from db.goodput import reading as goodput
from db.goodput.accounting import Breakdown
from db.models import Run
from db.records import live_runs
from db.records.live_runs import ShownRun
from db.runs.verdicts import verdicts
from db.store.engine import DIALECTS, reading
from lossguard.vocabulary.metrics import BY_NAME, SIGNALS
from lossguard.vocabulary.states import MAY_RECOVER, IncidentKind, IncidentState
from monitor.detection.effects import INTERVENTION_TERMINAL
from monitor.ingestion.run_state import run_policies, run_status
from monitor.telemetry import preflight_metrics
from monitor.telemetry.hardware_metrics import HardwareFamilies
from monitor.telemetry.run_family import FamilyType, RunFamily, Samples, label, run_labels

INCIDENT_LINGER_SECONDS = 20.0
"""Seconds for which a closed incident is still shown: otherwise one between two scrapes would never be seen."""
MAX_AGE_SECONDS = 30.0
"""Age after which a breakdown is read again."""
MAX_READS = 8
"""Maximum number of runs that one scrape reads, those with the oldest breakdowns first: each takes 30 to 80 ms."""
Labelled = Sequence[tuple[str, ShownRun]]
"""Runs, each with its labels."""
Value = Callable[[ShownRun], float | None]


class RunMetrics:
    """The metrics of the runs of a store as text. It keeps what did not change between two scrapes."""

    def __init__(self, engine: sa.Engine, *, limit: int, clock: Callable[[], float] = time.time) -> None:
        """`limit`: number of runs that are shown at most. `clock` returns unix seconds, as reports are stamped."""
        self._engine, self._limit, self._clock = engine, limit, clock
        self._run_time, self._hardware = RunTimeCache(), HardwareFamilies()
        self._families: dict[str, RunFamily] = {}

    def text(self) -> bytes:
        """A store that does not answer shows as `lossguard_database_up` 0; the runs are missing then."""
        try:
            with reading(self._engine) as session:
                of_store, of_runs = self._read(session)
        except sa.exc.SQLAlchemyError:
            of_store, of_runs = [], ""
        text = "Whether the database answered this scrape"
        up = GaugeMetricFamily("lossguard_database_up", text, value=float(bool(of_store)))
        return generate_latest(_Read([up, *of_store, *disk(self._engine.url)])) + of_runs.encode()

    def _read(self, session: Session) -> tuple[list[Metric], str]:
        """Return the metrics of no single run, or of few; and the text of all others."""
        now, num_running = self._clock(), live_runs.num_running(session)
        pks = live_runs.shown_pks(limit=self._limit)
        runs = live_runs.shown(session, limit=self._limit)
        left_out = "Running runs that are not shown, see LOSSGUARD_MAX_RUNS_IN_METRICS"
        unreadable = "Running runs whose policy layers cannot be read: they keep the last valid policy, or observe"
        few = [
            GaugeMetricFamily("lossguard_policies_unreadable", unreadable, value=run_policies.num_unreadable(session)),
            GaugeMetricFamily("lossguard_running_runs", "Runs that have not ended", value=num_running),
            GaugeMetricFamily("lossguard_running_runs_left_out", left_out, value=num_running - len(runs)),
            *preflight_metrics.families(session, pks, now),
        ]
        labelled = [(run_labels(run.id, run.project), run) for run in runs]
        return few, "".join(self._texts(session, labelled, pks, now))

    def _texts(self, session: Session, runs: Labelled, pks: live_runs.RunPks, now: float) -> Iterator[str]:
        for name, (text, value) in _gauges(now).items():
            yield self._plain(runs, name, text, value)
        skipped, lost = live_runs.skipped_batches(session, run_pks=pks), live_runs.lost_steps(session, run_pks=pks)
        totals: dict[str, tuple[str, Value]] = {
            "nonfinite_steps": (
                "Steps with a non-finite loss, gradient norm or log Z",
                lambda run: run.nonfinite_steps,
            ),
            "skipped_steps": (
                "Updates that the optimizer did not take: the gate's, or what the loop logs as skipped",
                lambda run: run.skipped_steps,
            ),
            "batches_skipped": ("Batches that the run skipped by order", lambda run: skipped.get(run.run_pk, 0)),
            "steps_lost": ("Optimizer steps on discarded branches", lambda run: lost.get(run.run_pk, 0)),
        }
        for name, (text, value) in totals.items():
            yield self._plain(runs, name, text, value, FamilyType.COUNTER)
        yield from self._incidents(session, runs, pks, now)
        yield from self._interventions(session, runs, pks)
        uncertified = live_runs.uncertified_steps(session, run_pks=pks)
        text = "Step of the newest saved state that is never restored, until a newer one can be"
        yield self._plain(runs, "uncertified_checkpoint_step", text, lambda run: uncertified.get(run.run_pk))
        yield from self._run_time_texts(session, runs, now)
        yield from self._hardware.texts(session, runs, pks, now)

    def _family(self, name: str, text: str, kind: FamilyType = FamilyType.GAUGE) -> RunFamily:
        return self._families.setdefault(name, RunFamily(f"lossguard_{name}", text, kind))

    def _plain(self, runs: Labelled, name: str, text: str, value: Value, kind: FamilyType = FamilyType.GAUGE) -> str:
        """A family with one value of each run."""
        return self._family(name, text, kind).plain_text((labels, value(run)) for labels, run in runs)

    def _incidents(self, session: Session, runs: Labelled, pks: live_runs.RunPks, now: float) -> Iterator[str]:
        """Counters start at 0 for every kind: Prometheus sees no increase in a counter that appears with 1."""
        family = self._family("incidents_closed", "Closed incidents by kind", FamilyType.COUNTER)
        closed = live_runs.closed_incidents(session, run_pks=pks)
        counts: dict[int, dict[str, int]] = defaultdict(lambda: dict.fromkeys(IncidentKind, 0))
        for (pk, kind), count in closed.items():
            counts[pk][kind] = count
        yield family.text(_by(runs, "kind", counts, dict.fromkeys(IncidentKind, 0)))
        text = (
            "Onset step of the newest incident by kind and state; one that was open for less than "
            f"{INCIDENT_LINGER_SECONDS:.0f} s stays as long after its end"
        )
        shown = live_runs.present_incidents(session, run_pks=pks, now=now, linger=INCIDENT_LINGER_SECONDS)
        newest: dict[int, dict[tuple[str, str], int]] = defaultdict(dict)
        lasting: dict[int, float | None] = {}
        for one in shown:
            newest[one.run_pk][one.kind, one.state] = one.onset_step
            if one.state != IncidentState.CLOSED and one.kind in MAY_RECOVER:
                lasting[one.run_pk] = one.details.get("lasting_probability")
        yield self._family("incident_onset_step", text).text(_by_kind_and_state(runs, newest))
        text = "Probability that the newest open incident does not recover by itself, where it is known"
        yield self._plain(runs, "incident_lasting_probability", text, lambda run: lasting.get(run.run_pk))
        text = "1 for the present verdict of a run with an incident, the one of its page and of lossguard show"
        found = verdicts(session, runs=session.scalars(sa.select(Run).where(Run.pk.in_(newest))).all(), now=now)
        judged = {pk: {verdict.verdict: 1.0} for pk, verdict in found.items()}
        yield self._family("verdict", text).text(_by(runs, "verdict", judged, {}))

    def _interventions(self, session: Session, runs: Labelled, pks: live_runs.RunPks) -> Iterator[str]:
        none = dict.fromkeys(sorted(INTERVENTION_TERMINAL), 0)
        ended: dict[int, Counter[str]] = defaultdict(lambda: Counter(none))
        pending: dict[int, dict[tuple[str, str], int]] = defaultdict(dict)
        for (pk, kind, state), count in live_runs.interventions(session, run_pks=pks).items():
            if state in INTERVENTION_TERMINAL:
                ended[pk][state] += count
            else:
                pending[pk][kind, state] = count
        family = self._family("interventions", "Completed interventions by outcome", FamilyType.COUNTER)
        yield family.text(_by(runs, "outcome", ended, none))
        text = "Interventions without an outcome yet"
        yield self._family("interventions_pending", text).text(_by_kind_and_state(runs, pending))

    def _run_time_texts(self, session: Session, runs: Labelled, now: float) -> Iterator[str]:
        """A gauge: steps that a rollback discards move from one cause to another."""
        text = "Time since the start of the run by what it was used for; the share of the cause training is the goodput"
        read = self._run_time.read(session, [run.run_pk for _, run in runs], now)
        seconds = {pk: breakdown.seconds for pk, (_, breakdown) in read.items()}
        yield self._family("run_time_seconds", text).text(_by(runs, "cause", seconds, {}))
        ages = {pk: now - read_at for pk, (read_at, _) in read.items()}
        text = "Age of the run's values of lossguard_run_time_seconds: a scrape reads a few runs anew"
        yield self._plain(runs, "run_time_age_seconds", text, lambda run: ages.get(run.run_pk))


class RunTimeCache:
    """The use of each shown run's time, kept between scrapes: each scrape reads a few runs anew."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[float, Breakdown]] = {}

    def read(self, session: Session, shown: Sequence[int], now: float) -> Mapping[int, tuple[float, Breakdown]]:
        """Key of a run -> when its breakdown was read, and the breakdown; without the runs that were never read.

        `now` and the times are unix seconds.
        """
        before = self._read  # replaced as a whole: scrapes may overlap
        known = {pk: before[pk] for pk in shown if pk in before}
        ages = {pk: now - known[pk][0] if pk in known else float("inf") for pk in shown}
        due = sorted((pk for pk in shown if ages[pk] >= MAX_AGE_SECONDS), key=lambda pk: -ages[pk])
        if due:
            runs = session.scalars(sa.select(Run).where(Run.pk.in_(due[:MAX_READS]))).all()
            known |= {pk: (now, found) for pk, found in goodput.breakdowns(session, runs=runs, now=now).items()}
        self._read = known
        return known


class _Read(Collector):
    """Metrics that were read already."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def _gauges(now: float) -> dict[str, tuple[str, Value]]:
    """Return by name: help, and the value of a run."""
    found: dict[str, tuple[str, Value]] = {}
    for name in run_status.GAUGES:
        metric = BY_NAME[name]
        own_name = metric.gauge.removeprefix("lossguard_")
        found[own_name] = f"{metric.gauge_help}; newest value", partial(run_status.value, name=name)
    window = f"{run_status.PEAK_WINDOW_SECONDS:.0f} s or slightly longer"
    for name in SIGNALS:
        metric = BY_NAME[name]
        text = f"{metric.gauge_help}; maximum over the last {window}, NaN if any value was NaN"
        own_name = metric.gauge.removeprefix("lossguard_")
        found[f"peak_{own_name}"] = text, partial(run_status.peak, name=name, now=now)
    return found | PROGRESS


PROGRESS: dict[str, tuple[str, Value]] = {
    "step": ("Newest step", lambda run: run.step),
    "last_report_timestamp_seconds": (
        "When the last report of the run arrived, heartbeats included",
        lambda run: run.last_report_at,
    ),
    "last_step_timestamp_seconds": (
        "When the newest step arrived, or the run was registered; heartbeats do not count",
        lambda run: run.last_step_at,
    ),
    "expected_by_timestamp_seconds": (
        "End of the pause that the loop announced (run.expect); absent without one",
        lambda run: run.expected_by,
    ),
    "checkpoints_failing": ("1 while the checkpoints of the run cannot be saved", lambda run: float(run.saves_fail)),
    "step_seconds": ("Median time per step over the last reports", run_status.step_seconds),
    "tokens_per_second": ("Tokens per second over the last reports", run_status.tokens_per_second),
    "spool_bytes": (
        "Undelivered bytes in the trainer's spool, as of its last report",
        lambda run: run.undelivered_bytes,
    ),
}


def _by(
    runs: Labelled, name: str, values: Mapping[int, Mapping[Any, float]], none: Mapping[Any, float]
) -> Iterator[tuple[str, Samples]]:
    """A sample for each value of one more label, which stands before those of the run; `none`: of the other runs."""
    of_others = _samples(name, none)
    for labels, run in runs:
        yield labels, _samples(name, values[run.run_pk]) if run.run_pk in values else of_others


def _samples(name: str, values: Mapping[Any, float]) -> Samples:
    return [(f"{label(name, value)},", "", number) for value, number in values.items()]


def _by_kind_and_state(
    runs: Labelled, values: Mapping[int, Mapping[tuple[str, str], float]]
) -> Iterator[tuple[str, Samples]]:
    for labels, run in runs:
        if run.run_pk in values:
            found = values[run.run_pk].items()
            yield (
                labels,
                [(f"{label('kind', kind)},", f",{label('state', state)}", number) for (kind, state), number in found],
            )


def disk(url: sa.URL) -> Iterator[Metric]:
    """The file system of an embedded store; a database server has its own exporter."""
    file = DIALECTS[url.get_backend_name()].store_file(url)
    if file is None:
        return
    usage = shutil.disk_usage(file.parent)
    yield GaugeMetricFamily("lossguard_disk_free_bytes", "Free space on the store's file system", value=usage.free)
    yield GaugeMetricFamily("lossguard_disk_size_bytes", "Size of the store's file system", value=usage.total)
