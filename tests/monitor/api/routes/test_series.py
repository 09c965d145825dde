import shutil
from pathlib import Path

import sqlalchemy as sa

from db.steps.archived.places import Place
from db.store.engine import writing
from lossguard.vocabulary.protocol import API
from tests.db.archive.stored import add_ended_run, archive
from tests.monitor.client import TestClient, Trainer


def test_custom_metrics_have_series_too(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [0, 1], {"loss": [1.0, 1.0], "eval/loss": [None, 2.5]})
    assert trainer.get("/series", metric="eval/loss")["last"] == [2.5]
    assert trainer.get()["metrics"] == ["loss", "perplexity", "eval/loss"]


def test_archived_steps_that_cannot_be_read_are_one_sentence_and_a_chart_of_the_whole_run_works(
    http: TestClient, sqlite_engine: sa.Engine, tmp_path: Path
) -> None:
    with writing(sqlite_engine) as session:
        add_ended_run(session)
    archive(sqlite_engine, Place(str(tmp_path / "place")))
    shutil.rmtree(tmp_path / "place")
    path = f"{API}/runs/r1/series?metric=loss&points="
    assert http.get(f"{path}3").status_code == 200
    answer = http.get(f"{path}2000")
    assert (answer.status_code, answer.json()["title"]) == (503, "archived steps cannot be read")
    detail = answer.json()["detail"]
    assert detail.startswith("the archived steps 0 to 511 of the run 'r1' cannot be read: cannot read file://")
    assert detail.endswith("is it mounted? The folder has no file lossguard-archive.txt")
