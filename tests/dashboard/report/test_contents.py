"""Which curves a report contains."""

from dashboard.report.contents import curve_names


def test_the_default_charts_come_first_and_then_the_scalars_of_the_user() -> None:
    metrics = ["lr", "loss", "tokens", "batch_index", "my/score", "throughput"]
    assert curve_names(metrics) == ["loss", "lr", "throughput", "my/score"]
