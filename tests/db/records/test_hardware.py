"""Samples of the hardware: stored once, bounded, and an error stays the longest."""

import pytest
import sqlalchemy as sa

from db.records import hardware
from db.store.engine import reading, writing
from tests.db.seed import NOW, add_run


def sample(time: float, device: str = "gpu0", /, **values: float) -> dict[str, object]:
    values = values or {"power": 600.0}
    return {"time": NOW + time, "step": int(time), "host": "h", "device": device, "values": values}


def test_a_sample_is_stored_once_however_often_it_is_sent(engine: sa.Engine) -> None:
    sent = [sample(0), sample(0, "gpu1"), sample(15, ecc_errors=2.0, xid_errors=1.0)]
    with writing(engine) as session:
        run = add_run(session)
        for _ in range(2):
            hardware.add_samples(session, run=run, samples=sent)
    with reading(engine) as session:
        stored = hardware.samples(session, run=run)
        assert [(one.device, one.step, one.num_errors) for one in stored] == [
            ("gpu0", 0, 0),
            ("gpu1", 0, 0),
            ("gpu0", 15, 3),
        ]
        assert stored[2].readings == {"ecc_errors": 2.0, "xid_errors": 1.0}
        assert [one.step for one in hardware.samples(session, run=run, errors_only=True)] == [15]
        assert [one.step for one in hardware.samples(session, run=run, first=NOW + 1, last=NOW + 15)] == [15]


def test_a_run_keeps_so_many_samples_the_newest_all_and_every_error(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "MAX_SAMPLES", 40)
    with writing(sqlite_engine) as session:
        run, other = add_run(session), add_run(session, "r2")
        hardware.add_samples(session, run=other, samples=[sample(0)])
        for time in range(200):
            values = {"ecc_errors": 1.0} if time == 3 else {"power": 1.0}
            hardware.add_samples(session, run=run, samples=[sample(time, **values)])
    with reading(sqlite_engine) as session:
        steps = [one.step or 0 for one in hardware.samples(session, run=run)]
        assert 20 <= len(steps) <= 40
        assert steps[-15:] == [*range(185, 200)]
        assert 3 in steps
        assert min(steps) < 20, "the beginning is not lost"
        assert len(hardware.samples(session, run=other)) == 1


def test_errors_in_every_sample_are_bounded_too(sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "MAX_SAMPLES", 40)
    with writing(sqlite_engine) as session:
        run = add_run(session)
        for time in range(100):
            hardware.add_samples(session, run=run, samples=[sample(time, xid_errors=1.0)])
        assert len(hardware.samples(session, run=run)) <= 40


def test_the_newest_sample_of_each_device_is_found_unless_it_is_old(sqlite_engine: sa.Engine) -> None:
    with writing(sqlite_engine) as session:
        run = add_run(session)
        sent = [sample(0, "gpu0"), sample(0, "gpu1"), sample(15, "gpu1"), sample(15, "machine")]
        hardware.add_samples(session, run=run, samples=sent)
    with reading(sqlite_engine) as session:
        found = hardware.newest(session, run_pks=[run.pk], since=NOW + 10)
        assert [(one.device, one.step) for one in found] == [("gpu1", 15), ("machine", 15)]
