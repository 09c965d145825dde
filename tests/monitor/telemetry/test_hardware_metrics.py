"""Gauges of the hardware of running runs."""

from tests.monitor.client import NOW, TestClient, Trainer


def test_the_newest_sample_of_a_running_run_is_exported_until_it_is_old_or_the_run_has_ended(http: TestClient) -> None:
    trainer = Trainer(http)
    named = {"step": 3, "host": "node-1"}
    samples = [
        {"time": NOW - 20, "device": "gpu0", "values": {"temperature": 55.0}} | named,
        {"time": NOW - 5, "device": "gpu0", "values": {"temperature": 61.0, "ecc_errors": 1.0}} | named,
        {"time": NOW - 999, "device": "gpu1", "values": {"temperature": 40.0}} | named,
    ]
    trainer.report(trainer.open("a"), [], {}, hardware=samples)
    text = http.get("/metrics").text
    labels = '{device="gpu0",host="node-1",project="gpt",run="r1"}'
    assert f"lossguard_gpu_temperature_celsius{labels} 61.0" in text
    assert f"lossguard_gpu_ecc_errors{labels} 1.0" in text
    assert "gpu1" not in text
    http.post("/api/v1/runs/r1/finish", json={"state": "finished", "at": NOW})
    assert "node-1" not in http.get("/metrics").text


def test_an_error_is_shown_for_some_minutes(http: TestClient) -> None:
    trainer = Trainer(http)
    named = {"step": 3, "host": "node-1", "device": "gpu0"}
    samples = [
        {"time": NOW - age, "values": {"ecc_errors": count}} | named for age, count in ((301, 9), (60, 2), (5, 0))
    ]
    trainer.report(trainer.open("a"), [], {}, hardware=samples)
    text = http.get("/metrics").text
    assert 'lossguard_gpu_ecc_errors{device="gpu0",host="node-1",project="gpt",run="r1"} 2.0' in text
