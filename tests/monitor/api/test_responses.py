from lossguard.vocabulary.source_facts import SourceFacts
from tests.monitor.client import TestClient, Trainer
from tests.monitor.scenarios import source_event


def test_a_rollback_keeps_both_lines_and_marks_the_live_one(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), range(150), {"loss": [1.0] * 150})
    segment = trainer.open("b", 100, "rewind")
    trainer.report(segment, range(100, 200), {"loss": [2.0] * 100})
    assert trainer.get("/series", metric="loss")["last"] == [1.0] * 100 + [2.0] * 100
    assert trainer.get("/series", metric="loss", segment=0)["last"] == [1.0] * 150
    run = trainer.get()
    assert [(one["parent"], one["live_from"], one["live_to"]) for one in run["segments"]] == [
        (None, 0, 100),
        (0, 100, None),
    ]
    assert (run["steps_consumed"], run["steps_effective"]) == (250, 200)
    again = trainer.report(0, [100, 150], {"loss": [7.0, 7.0]})  # a spool that comes late: 100 is known, 150 is not
    assert (again["accepted"], again["duplicates"]) == (1, 1)
    assert trainer.get("/series", metric="loss", segment=0)["last"] == [1.0] * 150 + [7.0]
    assert trainer.get("/series", metric="loss")["last"] == [1.0] * 100 + [2.0] * 100
    assert trainer.get()["steps_effective"] == 200


def test_a_run_says_how_its_rows_are_made(http: TestClient) -> None:
    trainer = Trainer(http)
    segment = trainer.open("a")
    trainer.report(segment, [0, 10], {"loss": [1.0, 1.0]})
    assert trainer.get()["source"] | {"clock": "steps"} == trainer.get()["source"]
    assert trainer.get()["source"]["sentences"] == []
    for key, stride in (("a", 5), ("b", 10)):
        trainer.report(segment, [], {}, events=[source_event(key, 20, SourceFacts(stride=stride))])
    source = trainer.get()["source"]
    assert (source["stride"], source["sentences"]) == (10, SourceFacts(stride=10).describe())


def test_an_event_with_other_details_breaks_no_run(http: TestClient) -> None:
    trainer = Trainer(http)
    event = source_event("a", 0, SourceFacts()) | {"details": {"stride": "ten", "smoothing": 10**400, "clock": [1]}}
    trainer.report(trainer.open("a"), [0], {"loss": [1.0]}, events=[event])
    assert trainer.get()["source"]["sentences"] == []
