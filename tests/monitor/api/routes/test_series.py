from tests.monitor.client import TestClient, Trainer


def test_custom_metrics_have_series_too(http: TestClient) -> None:
    trainer = Trainer(http)
    trainer.report(trainer.open("a"), [0, 1], {"loss": [1.0, 1.0], "eval/loss": [None, 2.5]})
    assert trainer.get("/series", metric="eval/loss")["last"] == [2.5]
    assert trainer.get()["metrics"] == ["loss", "perplexity", "eval/loss"]
