from db.engine import reading
from db.run_statuses import Standing, standings
from tests.monitor.client import TestClient, Trainer
from tests.monitor.conftest import http as http


def test_the_newest_step_and_values_of_every_run_that_has_reported(http: TestClient) -> None:
    silent, trainer = Trainer(http, "silent"), Trainer(http)
    trainer.report(trainer.open("a"), range(3), {"loss": [3.0, 2.0, float("inf")], "mine": [1.0, 2.0, 3.0]})
    with reading(http.app.state.engine) as session:  # type: ignore[attr-defined]
        found = list(standings(session).values())
    assert silent.run_id == "silent"
    assert Standing(2, {"loss": "Infinity"}) in found
    assert all(each.step in (None, 2) for each in found)
