"""The hardware of a run as a figure."""

from datetime import UTC

from dashboard.figures.line_panels import hardware_figure, thinned
from db.records.hardware import HardwareSample
from lossguard.vocabulary.hardware import num_errors


def sample(time: float, device: str = "gpu0", host: str = "h", **readings: float) -> HardwareSample:
    errors = num_errors(readings)
    return HardwareSample(time=time, step=int(time), host=host, device=device, readings=readings, num_errors=errors)


def test_each_value_has_a_panel_with_a_line_for_each_device_and_errors_are_marked() -> None:
    samples = [
        sample(0, temperature=60.0, ecc_errors=0.0),
        sample(0, "gpu1", temperature=61.0, ecc_errors=1.0),
        sample(0, "machine", memory=0.5),
    ]
    figure = hardware_figure(samples, UTC, revision="r")
    assert figure is not None
    assert [each.text for each in figure.layout.annotations] == [
        "<b>GPU temperature (°C)</b>",
        "<b>Memory in use (share)</b>",
    ]
    assert [trace.name for trace in figure.data] == ["gpu0", "gpu1", "machine"]
    assert len(figure.layout.shapes) == 1


def test_many_samples_are_thinned_and_the_last_and_the_errors_stay() -> None:
    samples = [sample(time, ecc_errors=float(time == 333)) for time in range(1000)]
    kept = [int(each.time) for each in thinned(samples, most=100)]
    assert len(kept) <= 102
    assert {333, 999} <= set(kept)
