from tests.monitor.client import TestClient, Trainer


def test_a_rollback_keeps_both_lines_and_marks_the_live_one(http_on_both: TestClient) -> None:
    trainer = Trainer(http_on_both)
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
