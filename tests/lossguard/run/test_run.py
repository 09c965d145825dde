from pathlib import Path

import lossguard


def test_off_does_nothing_at_all(tmp_path: Path) -> None:
    with lossguard.init("project", mode="off", directory=tmp_path) as run:
        run.log(0, loss=1.0)
        run.declare("data_mix")
        run.log_row(1, {"loss": 1.0}, 100.0)
        run.log_event("note", {}, 100.0)
        run.expect(next_report_in=60)
        assert run.take_order() is None
    assert list(tmp_path.iterdir()) == []
