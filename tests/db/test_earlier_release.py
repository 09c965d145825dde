"""A store that an earlier release wrote is upgraded, and its runs continue as that release would have continued them.

`stores/store.db.xz` and `stores/outcome.json` were written by the code of 0.1.0 at revision 0008; see
`tests.db.stores.scenario`.
"""

import json
import lzma
from pathlib import Path

import pytest
from typer.testing import CliRunner

from db import frames, queries
from db.cli.app import app
from db.files import export
from db.store.engine import create_engine, reading
from lossguard.vocabulary.states import IncidentState, OrderState
from tests.db.stores import scenario

STORES = Path(scenario.__file__).parent


def earlier_store(folder: Path) -> Path:
    store = folder / "store.db"
    store.write_bytes(lzma.decompress((STORES / "store.db.xz").read_bytes()))
    return store


def test_an_earlier_store_is_upgraded_and_fits_the_code(tmp_path: Path) -> None:
    url = f"sqlite:///{earlier_store(tmp_path)}"
    for command in ("upgrade", "check"):
        done = CliRunner().invoke(app, [command, "--url", url])
        assert done.exit_code == 0, done.output


def test_an_earlier_store_is_read_whole(tmp_path: Path) -> None:
    store = earlier_store(tmp_path)
    assert CliRunner().invoke(app, ["upgrade", "--url", f"sqlite:///{store}"]).exit_code == 0
    engine = create_engine(f"sqlite:///{store}")
    with reading(engine) as session:
        run = queries.run_named(session, run_id="ordered")
        assert run is not None
        (incident,), (order,) = queries.incidents(session, run=run), queries.orders(session, run=run)
        assert (incident.state, order.state) == (IncidentState.TREATED, OrderState.OPEN)
        frame = frames.steps(session, run=run)
    assert len(frame) == 360
    assert frame["eval/loss"].count() == 8
    assert b"".join(export.stream(engine, run_id="verifying", format=export.Format.CSV)).count(b"\n") == 1 + 301 + 20
    engine.dispose()


@pytest.mark.slow
def test_runs_of_an_earlier_store_continue_as_the_earlier_release_continued_them(tmp_path: Path) -> None:
    """The open order is sent again, the rollbacks are verified, and an incident that had just begun ends the same."""
    outcome = json.loads((STORES / "outcome.json").read_text(encoding="utf-8"))
    outcome["ordered"]["incidents"][0]["end_step"] = 419  # that release learnt the level while the order was under way
    found = scenario.with_collector(earlier_store(tmp_path), scenario.continue_runs)
    for run_id in ("ordered", "verifying", "spiking"):  # that release took a mean of means: they differ in the last bit
        assert found[run_id]["loss"].pop("mean") == pytest.approx(outcome[run_id]["loss"].pop("mean"), rel=1e-14)
    assert found == outcome
