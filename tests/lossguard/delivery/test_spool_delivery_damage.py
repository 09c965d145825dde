"""Whatever a disk does to a spool, its intact lines are delivered, and nobody is assured that all of them were."""

import errno
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lossguard
from lossguard.delivery.sender import Sender
from lossguard.spool.lines import to_line
from lossguard.spool.spool_reader import AcknowledgedOffset
from tests.lossguard.collectors import FakeCollector
from tests.lossguard.delivery.direct import deliver
from tests.lossguard.recorded import offline

NAME = "0" * 22 + ".spool"


def record_of(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "time": 1.0, "metrics": {"loss": loss}}


def segment(ordinal: int, fork_step: int) -> dict[str, Any]:
    opened = {"segment": ordinal, "fork_step": fork_step, "reason": "rewind", "order": None, "key": None}
    return opened | {"applied": None, "time": 2.0 + ordinal}


RECORDS = [
    {"run": {"id": "r", "project": "p", "config": {}}},
    segment(0, 0),
    *[record_of(step, float(step)) for step in range(6)],
    {"event": "data_mix", "step": 6, "time": 1.0, "details": {}},
    segment(1, 3),
    *[record_of(step, 100.0 + step) for step in range(3, 8)],
    {"finish": "finished", "time": 9.0},
]
RECORDS = [record | ({"time": float(number)} if "time" in record else {}) for number, record in enumerate(RECORDS)]
LINES = [to_line(record) for record in RECORDS]


def lines_of(content: bytes) -> list[bytes]:
    return list(io.BytesIO(content))  # bytes.splitlines would also split at \r


def delivered(content: bytes, folder: Path, collector: FakeCollector | None = None) -> tuple[FakeCollector, Sender]:
    collector = collector or FakeCollector()
    run = folder / "p" / "r"
    run.mkdir(parents=True, exist_ok=True)
    (run / NAME).write_bytes(content)
    return collector, deliver(run, collector)


def is_complete(sender: Sender) -> bool:
    return sender.delivered and not sender.set_aside.describe() and not sender.incomplete


def losses(collector: FakeCollector) -> set[float]:
    return {row["loss"] for row in collector.rows.values() if "loss" in row}


def losses_in(records: list[dict[str, Any]]) -> set[float]:
    return {record["metrics"]["loss"] for record in records if "metrics" in record}


positions = st.integers(0, sum(map(len, LINES)) - 1)
damages = st.one_of(
    st.tuples(st.just("flip"), positions, st.binary(min_size=1, max_size=1)),
    st.tuples(st.just("cut"), positions, st.integers(1, 400)),
    st.tuples(st.just("insert"), positions, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("zero"), positions, st.integers(1, 400)),
    st.tuples(st.just("repeat"), positions, st.integers(1, 400)),
)


def damaged(content: bytes, damage: tuple[str, int, Any]) -> bytes:
    kind, begin, value = damage
    if kind in ("flip", "insert"):
        return content[:begin] + bytes(value) + content[begin + (kind == "flip") :]
    middle = {"cut": b"", "zero": bytes(value), "repeat": 2 * content[begin : begin + value]}[kind]
    return content[:begin] + middle + content[begin + value :]


@pytest.mark.slow
@given(st.lists(damages, min_size=1, max_size=4))
def test_any_damage_leaves_the_intact_lines_deliverable_and_is_never_called_delivered(
    damages: list[tuple[str, int, Any]],
) -> None:
    content = b"".join(LINES)
    for damage in damages:
        content = damaged(content, damage)
    found = lines_of(content)
    intact = [record for record, line in zip(RECORDS, LINES, strict=True) if line in found]
    with tempfile.TemporaryDirectory() as folder:
        collector, sender = delivered(content, Path(folder))
        assert losses_in(intact) <= losses(collector) <= losses_in(RECORDS)
        assert is_complete(sender) == all(line in LINES for line in found)
        kept = b"".join(path.read_bytes() for path in Path(folder).rglob("*.spool"))
        assert kept == content
        again = deliver(Path(folder) / "p" / "r", collector)
        assert is_complete(again) == is_complete(sender), "a second attempt does not forget what is missing"


WRONG_TYPES = [
    b'{"step":0,"time":1.0,"metrics":5}\n',
    b'{"step":0,"time":1.0,"metrics":{"loss":NaN}}\n',
    b'{"step":0,"time":1.0,"metrics":{"loss":1e999}}\n',
    b'{"step":0,"metrics":{}}\n',
    b'{"segment":1}\n',
    b'{"event":"data_mix","step":0,"time":1.0}\n',
    b'{"answer":1}\n',
    b'{"event":"data_mix","step":7,"time":8.0,"metrics":{}}\n',
    b'{"finish":5,"time":1.0}\n',
    b"[]\n",
    b"\n",
    b"[" * 5000 + b"\n",
    b"\0" * 4096 + b"\n",
]


@pytest.mark.parametrize("line", WRONG_TYPES, ids=lambda line: line[:24].decode())
def test_a_line_that_nobody_wrote_is_set_aside_and_its_neighbours_arrive(tmp_path: Path, line: bytes) -> None:
    collector, sender = delivered(b"".join([*LINES[:4], line, *LINES[4:]]), tmp_path)
    assert sender.delivered
    assert not is_complete(sender)
    begin = len(b"".join(LINES[:4]))
    assert [(each.begin, each.end) for each in sender.set_aside.damaged] == [(begin, begin + len(line))]
    assert losses(collector) == {float(step) for step in range(6)} | {100.0 + step for step in range(3, 8)}
    assert collector.finished == ["finished"]


BEFORE = len(b"".join(LINES[:10]))  # where the damaged line ends: no step behind it


@pytest.mark.parametrize("ends", [(), (BEFORE, BEFORE + len(LINES[10]))], ids=["at once", "with interruptions"])
def test_steps_after_a_damaged_segment_line_do_not_count_as_duplicates_of_the_segment_before(
    tmp_path: Path, ends: tuple[int, ...]
) -> None:
    content = b"".join(LINES).replace(b'{"segment":1', b'{"segment":7')
    collector = FakeCollector()
    for end in (*ends, len(content)):
        delivered(content[:end], tmp_path, collector)
    assert collector.losses(0) == {step: float(step) for step in range(6)}
    assert collector.losses(1) == {step: 100.0 + step for step in range(3, 8)}
    assert len(collector.segments) == 2


def test_a_run_whose_registration_is_damaged_is_registered_by_the_names_of_its_folders(tmp_path: Path) -> None:
    collector, sender = delivered(b"x" + b"".join(LINES)[1:], tmp_path)
    assert (collector.runs["r"]["project"], collector.runs["r"]["id"]) == ("p", "r")
    assert sender.delivered
    assert len(losses(collector)) == 11


def test_a_run_whose_registration_is_damaged_is_registered_as_its_other_spool_says(tmp_path: Path) -> None:
    folder = tmp_path / "p" / "r"
    folder.mkdir(parents=True)
    other = folder / ("1" * 22 + ".spool")
    other.write_bytes(to_line({"run": {"id": "r", "project": "p", "config": {"lr": 1}}}))
    AcknowledgedOffset(other).save(other.stat().st_size)  # nothing of it is sent again
    collector, _ = delivered(b"x" + b"".join(LINES)[1:], tmp_path)
    assert collector.runs["r"]["config"] == {"lr": 1}


def test_an_incomplete_last_line_is_named_and_delivered_once_it_is_complete(tmp_path: Path) -> None:
    content = b"".join(LINES)
    collector, sender = delivered(content[:-5], tmp_path)
    assert sender.delivered
    assert "an incomplete line" in sender.incomplete[0]
    collector, sender = delivered(content, tmp_path, collector)
    assert is_complete(sender)
    assert collector.finished == ["finished"]


def test_a_running_trainer_delivers_what_is_intact_and_warns_once(
    collector: FakeCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with offline(tmp_path, run_id="r") as run:
        for step in range(5):
            run.log(step, loss=float(step))
    (spool,) = tmp_path.rglob("*.spool")
    spool.write_bytes(spool.read_bytes().replace(b'"loss":2.0', b'"loss":7.0').replace(b'"loss":4.0', b'"loss":7.0'))
    with lossguard.init("project", run_id="r", url=collector.url, directory=tmp_path) as run:
        run.log(5, loss=5.0)
    assert losses(collector) == {0.0, 1.0, 3.0, 5.0}
    assert caplog.text.count("is damaged at bytes") == 1
    assert "not everything was delivered" not in caplog.text


def test_a_folder_that_cannot_be_written_is_delivered_and_its_damage_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a snapshot of a disk, or one that became read-only."""

    def refuse(path: str, flags: int) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("lossguard.spool.spool_reader.open_private", refuse)
    monkeypatch.setattr("lossguard.spool.set_aside.open_private", refuse)
    content = b"".join(LINES).replace(b'"loss":2.0', b'"loss":3.0')
    collector, sender = delivered(content, tmp_path)
    assert sender.delivered
    assert len(losses(collector)) == 10
    assert [path.name for path in (tmp_path / "p" / "r").iterdir()] == [NAME]
    assert "damaged bytes in 1 place" in sender.set_aside.describe()
