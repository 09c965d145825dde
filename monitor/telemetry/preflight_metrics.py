"""Facts about rollbacks that wait for approval, for the text of the alert and its link to the dialog."""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy.orm import Session

from db.models import Run
from db.records import preflights
from db.records.live_runs import RunPks
from monitor.detection.interventions.preflight import Known, Preflight, preflight

LABELS = ["run", "project", "kind", "incident", "intervention"]
MAX_SHOWN = 32
"""Maximum proposals shown, the newest: each costs a few queries a scrape."""

GAUGES: list[tuple[str, str, Callable[[Preflight], float | None]]] = [
    (
        "discarded_steps",
        "Steps that a proposed rollback discards, up to the newest one",
        lambda of: of.recomputed_steps,
    ),
    (
        "skipped_batches",
        "Batches that a proposed rollback skips",
        lambda of: None if of.step is None else of.skipped_batches,
    ),
    (
        "restorable",
        "Whether the trainer has just found the checkpoint of a proposed rollback; absent if it has not answered",
        lambda of: of.restorable,
    ),
    (
        "refused",
        "Whether the trainer would refuse a proposed intervention, as far as is known",
        lambda of: of.refused is not None,
    ),
    (
        "restore_seconds",
        "How long the last restore from where the checkpoint is kept took; absent if none was measured",
        lambda of: of.restore_seconds,
    ),
    (
        "rollback_device_hours",
        "Devices x hours that a proposed rollback costs: the restore, and the steps up to the newest one",
        lambda of: of.rollback_hours,
    ),
    (
        "waiting_device_hours",
        "Devices x hours that each hour of waiting adds to the cost of a proposed rollback",
        lambda of: of.hours_per_hour,
    ),
]
"""Name, help and value of each gauge."""


def families(session: Session, run_pks: RunPks, now: float) -> Iterator[Metric]:
    """Gauges of the proposed interventions of these runs. A value that is not known is left out."""
    waiting = sorted(preflights.proposed(session, run_pks=run_pks), key=lambda each: each.created_at)
    shown: list[tuple[list[str], Preflight]] = []
    for each in waiting[-MAX_SHOWN:]:
        row = session.get_one(Run, each.run_pk)
        found = preflight(Known(**preflights.known(session, run=row, intervention=each, now=now)))
        incident = "" if each.incident is None else str(each.incident)
        shown.append(([row.id, row.project, each.kind, incident, str(each.number)], found))
    for name, text, value in GAUGES:
        family = GaugeMetricFamily(f"lossguard_preflight_{name}", text, labels=LABELS)
        for labels, found in shown:
            if (number := value(found)) is not None:
                family.add_metric(labels, float(number))
        yield family
