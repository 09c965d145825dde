import math
import random

import pytest

from lossguard.sources.names import NameMap
from lossguard.sources.recognition import Preview, Recognition, smoothing_of
from lossguard.vocabulary.source_facts import Clock, SourceFacts


def falling(count: int, noise: float = 0.05, seed: int = 0) -> list[float]:
    generator = random.Random(seed)
    return [2.2 + 3.0 * math.exp(-k / 200) + generator.gauss(0, noise) for k in range(count)]


def smoothed(losses: list[float], weight: float) -> list[float]:
    smooth = [losses[0]]
    for loss in losses[1:]:
        smooth.append(weight * smooth[-1] + (1 - weight) * loss)
    return smooth


def facts_of(losses: list[float], stride: int = 1, known: SourceFacts | None = None) -> SourceFacts:
    recognition = Recognition(known or SourceFacts())
    for k, loss in enumerate(losses):
        recognition.observe(k * stride, loss, {})
    return recognition.facts


def test_a_raw_loss_is_not_called_smoothed() -> None:
    assert facts_of(falling(2100)) == SourceFacts()


@pytest.mark.parametrize(("weight", "least", "most"), [(0.8, 0.7, 0.9), (0.9, 0.85, 0.95), (0.99, 0.97, 0.995)])
def test_an_exponential_moving_average_is_recognised(weight: float, least: float, most: float) -> None:
    assert least <= facts_of(smoothed(falling(2100), weight)).smoothing <= most


def test_every_tenth_row_and_a_mean_of_ten_are_not_called_smoothed() -> None:
    losses = falling(6000)
    assert facts_of(losses[::10], stride=10) == SourceFacts(stride=10)
    means = [sum(losses[k : k + 10]) / 10 for k in range(0, 6000, 10)]
    assert facts_of(means, stride=10) == SourceFacts(stride=10)


def test_rare_rows_are_recognised_early() -> None:
    assert [facts_of(falling(count), stride=250).stride for count in (3, 4, 100)] == [1, 250, 250]
    assert [facts_of(falling(count), stride=10).stride for count in (4, 15, 16)] == [1, 1, 10]
    samples = Recognition()
    for k in range(16):
        samples.observe(512 * k, 2.0, {"consumed_samples": 512.0 * k})
        assert not samples.facts.is_sparse
    assert (samples.facts.clock, samples.facts.stride) == (Clock.SAMPLES, 512)


def test_a_loss_that_still_falls_fast_decides_nothing() -> None:
    assert smoothing_of([10.0 * math.exp(-k / 60) + 0.001 * math.sin(k * k) for k in range(256)]) is None
    assert smoothing_of([1.0] * 256) is None


def test_what_is_known_beforehand_stays() -> None:
    known = SourceFacts(stride=10, averaged=True, smoothing=0.5, nan_filtered=True)
    assert facts_of(falling(600), stride=10, known=known) == known
    assert facts_of(falling(600), stride=20, known=known).stride == 20


def test_what_comes_to_be_known_late_joins_what_was_recognised() -> None:
    recognition = Recognition()
    for step in range(0, 400, 10):
        recognition.observe(step, 3.0, {})
    assert recognition.know(SourceFacts(averaged=True, nan_filtered=True))
    assert recognition.facts == SourceFacts(stride=10, averaged=True, nan_filtered=True)
    assert not recognition.know(SourceFacts())


def test_a_rewind_or_a_pause_does_not_change_the_stride() -> None:
    recognition = Recognition()
    for step in [*range(0, 200, 10), *range(100, 300, 10), *range(1000, 1300, 10)]:
        recognition.observe(step, 3.0, {})
    assert recognition.facts.stride == 10


def test_zero_after_a_real_loss_is_a_filtered_nan_but_not_near_zero() -> None:
    assert facts_of([3.0, 3.0, 0.0]).nan_filtered
    assert not facts_of([0.0, 0.0]).nan_filtered
    assert not facts_of([0.01, 0.002, 0.0]).nan_filtered
    assert not facts_of([3.0, math.nan, 2.9]).nan_filtered


def test_an_axis_of_samples_or_epochs_is_recognised_by_its_counter() -> None:
    for name, clock in (("consumed_samples", Clock.SAMPLES), ("epoch", Clock.EPOCHS)):
        recognition = Recognition()
        for k in range(1, 20):
            recognition.observe(32 * k, 3.0, {name: 32.0 * k, "lr": 0.1})
        assert recognition.facts.clock is clock
    recognition = Recognition()
    for k in range(1, 20):
        recognition.observe(k, 3.0, {"epoch": k / 100})
    assert recognition.facts.clock is Clock.STEPS


def preview(names: NameMap, rows: list[dict[str, float]]) -> str:
    made = Preview(names)
    for step, values in enumerate(rows):
        names.mapped(values)
        made.add(10 * step, values)
    return made.text()


def test_the_table_says_what_each_name_became() -> None:
    text = preview(NameMap(), [{"train/loss": 3.0, "epoch": 0.5}, {"train/loss": 2.5}])
    assert text.splitlines() == [
        "the first 2 rows, steps 0 to 10:",
        "  name in the source  recorded as     first  last  rows",
        "  train/loss          loss                3   2.5     2",
        "  epoch               (its own name)    0.5   0.5     1",
    ]


def test_a_source_without_a_loss_says_how_to_name_it() -> None:
    assert "--map loss=NAME" in preview(NameMap(), [{"objective": 3.0}])


def test_an_override_that_never_came_is_one_sentence() -> None:
    text = preview(NameMap({"loss": "train/ce"}), [{"train/loss": 3.0}])
    assert "--map loss=train/ce: no such name in the first row; names there: train/loss." in text
