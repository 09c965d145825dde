"""Samples of the hardware of a run's machines. The caller owns the transaction, and has locked the run to write.

A run keeps MAX_SAMPLES at most: then every second sample without an error goes from the older half, so that the newest
ones are complete and the oldest ones ever farther apart.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.models import Base, BigInt, JsonDict, OfRun, Run, Str256, Time
from db.records.live_runs import RunPks
from db.store import bulk
from lossguard.vocabulary.hardware import ERRORS, MAX_DEVICE, num_errors

Device = tuple[int, str, str]
"""Key of a run, host and name of one of its devices."""
MAX_SAMPLES = 20_000
"""Maximum samples of a run: with eight GPUs and a sample every 15 s, nine hours at full resolution."""


class HardwareSample(Base):
    """Readings of one device since its sample before."""

    __tablename__ = "hardware_samples"
    __table_args__ = (UniqueConstraint("run_pk", "time", "host", "device"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    """A hundred samples a second would use up 32 bits in eight months. SQLite has 64 in an Integer."""
    run_pk: Mapped[OfRun]
    time: Mapped[Time]
    step: Mapped[BigInt | None]
    """The newest step that the run had logged."""
    host: Mapped[Str256]
    device: Mapped[str] = mapped_column(String(MAX_DEVICE))
    num_errors: Mapped[BigInt] = mapped_column(default=0)
    readings: Mapped[JsonDict]
    """The values by their names in `lossguard.vocabulary.hardware`."""


def add_samples(session: Session, *, run: Run, samples: Sequence[Mapping[str, Any]]) -> None:
    """Store samples as a report has them (time, step, host, device, values); known ones are dropped."""
    if not samples:
        return
    times = [sample["time"] for sample in samples]
    stored = sa.select(HardwareSample.time, HardwareSample.host, HardwareSample.device)
    stored = stored.where(HardwareSample.run_pk == run.pk, HardwareSample.time.between(min(times), max(times)))
    known = {tuple(row) for row in session.execute(stored)}
    sent: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for sample in samples:
        sent.setdefault((sample["time"], sample["host"], sample["device"]), sample)
    new = [sample for identity, sample in sent.items() if identity not in known]
    if not new:
        return
    columns: dict[str, Any] = {name: [sample[name] for sample in new] for name in ("time", "step", "host", "device")}
    columns["num_errors"] = [num_errors(sample["values"]) for sample in new]
    columns["readings"] = [json.dumps(sample["values"]) for sample in new]
    bulk.insert(session, HardwareSample, {"run_pk": run.pk, **columns})
    _thin(session, run)


def _thin(session: Session, run: Run) -> None:
    of_run = HardwareSample.run_pk == run.pk
    if (_count(session, of_run)) <= MAX_SAMPLES:
        return
    newer_half = sa.select(HardwareSample.time).where(of_run).order_by(HardwareSample.time.desc())
    middle = session.scalar(newer_half.offset(MAX_SAMPLES // 2).limit(1))
    place = sa.func.row_number().over(
        partition_by=(HardwareSample.host, HardwareSample.device), order_by=HardwareSample.time
    )
    older = sa.select(HardwareSample.id, place.label("place"))
    older_half = older.where(of_run, HardwareSample.num_errors == 0, HardwareSample.time <= middle).subquery()
    every_second = sa.select(older_half.c.id).where(older_half.c.place % 2 == 0)
    _delete(session, HardwareSample.id.in_(every_second))
    if _count(session, of_run) > MAX_SAMPLES:  # errors in nearly every sample
        _delete(session, sa.and_(of_run, HardwareSample.time <= middle))


def _count(session: Session, condition: sa.ColumnElement[bool]) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(HardwareSample).where(condition)) or 0


def _delete(session: Session, condition: sa.ColumnElement[bool]) -> None:
    session.execute(sa.delete(HardwareSample).where(condition).execution_options(synchronize_session=False))


def samples(
    session: Session, *, run: Run, first: float | None = None, last: float | None = None, errors_only: bool = False
) -> Sequence[HardwareSample]:
    """The run's samples from `first` to `last` (unix seconds), oldest first."""
    found = sa.select(HardwareSample).where(HardwareSample.run_pk == run.pk)
    if first is not None:
        found = found.where(HardwareSample.time >= first)
    if last is not None:
        found = found.where(HardwareSample.time <= last)
    if errors_only:
        found = found.where(HardwareSample.num_errors > 0)
    order = (HardwareSample.time, HardwareSample.host, HardwareSample.device)
    return session.scalars(found.order_by(*order)).all()


def num_errors_since(session: Session, *, run_pks: RunPks, since: float) -> Mapping[Device, dict[str, float]]:
    """The errors of each device since `since` (unix seconds), by their names."""
    found = sa.select(HardwareSample).where(
        HardwareSample.run_pk.in_(run_pks), HardwareSample.time >= since, HardwareSample.num_errors > 0
    )
    totals: dict[Device, dict[str, float]] = {}
    for sample in session.scalars(found):
        total = totals.setdefault((sample.run_pk, sample.host, sample.device), dict.fromkeys(ERRORS, 0.0))
        for name in ERRORS:
            total[name] += sample.readings.get(name, 0.0)
    return totals


def newest(session: Session, *, run_pks: RunPks, since: float) -> Sequence[HardwareSample]:
    """The newest sample of each device of these runs, none from before `since` (unix seconds)."""
    by = (HardwareSample.run_pk, HardwareSample.host, HardwareSample.device)
    recent = sa.and_(HardwareSample.run_pk.in_(run_pks), HardwareSample.time >= since)
    last = sa.select(*by, sa.func.max(HardwareSample.time).label("time")).where(recent).group_by(*by).subquery()
    same = [HardwareSample.time == last.c.time, *(column == last.c[column.key] for column in by)]
    found = sa.select(HardwareSample).join(last, sa.and_(*same))
    return session.scalars(found.order_by(*by)).all()
