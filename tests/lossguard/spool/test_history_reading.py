"""What a run recorded is read back from its spools."""

from pathlib import Path

import lossguard


def test_the_records_of_all_sessions_are_read_in_the_order_of_writing(tmp_path: Path) -> None:
    for first in (0, 2):
        with lossguard.init("p", run_id="r", mode="offline", directory=tmp_path) as run:
            for step in (first, first + 1):
                run.log(step, loss=float(step))
            run.declare("data_mix", name="code")
    assert run.directory is not None
    records = list(lossguard.read_spools(run.directory))
    assert [record["step"] for _, record in records if "metrics" in record] == [0, 1, 2, 3]
    assert len({session for session, _ in records}) == 2
    kinds = [
        next(key for key in ("run", "segment", "metrics", "event", "finish") if key in record) for _, record in records
    ]
    assert kinds == ["run", "segment", "metrics", "metrics", "event", "finish"] * 2


def test_truncated_and_damaged_lines_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "1.spool").write_bytes(
        b'{"step":0,"metrics":{}}\n\x00garbage\n5\n{"step":1,"metrics":{}}\n{"step":2,"metr'
    )
    assert [record["step"] for _, record in lossguard.read_spools(tmp_path)] == [0, 1]
