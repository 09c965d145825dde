from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.small import logged, small_recipe
from trainer.config import DataConfig, ModelConfig
from trainer.data.batches import bytes_per_token, open_batches
from trainer.measurement.throughput import PeakFlops, Throughput, from_data_sheet
from trainer.model import flops_per_token
from trainer.train import Job, train


def _throughput(folder: Path, **settings: Any) -> Throughput:
    recipe = small_recipe(folder, steps=25, log_every=10)
    return Throughput(recipe, num_parameters=1000, peak=PeakFlops(1e9, "a guess"), **settings)


def test_rates_are_returned_at_intervals_and_at_the_end_over_all_the_time_between(tmp_path: Path) -> None:
    throughput = _throughput(tmp_path)
    reported = {step: throughput.after(step, now=100.0 + 0.5 * step) for step in range(25)}
    assert [step for step in reported if reported[step]] == [9, 19, 24]
    assert {reported[step]["tokens_per_second"] for step in (9, 19, 24)} == {128.0}
    assert reported[9]["mfu_6nd"] == pytest.approx(128 * 6000 / 1e9)
    assert reported[9]["mfu"] == pytest.approx(128 * flops_per_token(throughput.recipe.model) / 1e9)
    assert throughput.median() == reported[24]


def test_steps_that_are_done_again_after_a_rollback_are_measured_anew(tmp_path: Path) -> None:
    throughput = _throughput(tmp_path)
    for step, now in [(0, 0.0), (9, 9.0), (13, 13.0), (5, 60.0)]:
        throughput.after(step, now)
    assert throughput.after(9, 64.0)["tokens_per_second"] == 64.0


def test_the_summary_has_speed_utilisation_and_size(tmp_path: Path) -> None:
    throughput = _throughput(tmp_path)
    assert throughput.summary() == [f"1.6 tokens per parameter (Chinchilla: about 20); {_flops(throughput)}"]
    throughput.after(0, 0.0)
    throughput.after(9, 9.0)
    assert (
        throughput.summary()[0]
        == "64 tokens per second; MFU 0.4% (6ND: 0.0%; full attention: 0.4%) of 1 x 0.001 TFLOP/s (a guess)"
    )


def _flops(throughput: Throughput) -> str:
    return f"{1600 * throughput.flops_per_token:.3g} FLOPs (6ND: 9.6e+06)"


def test_a_run_logs_its_rates_and_bits_per_byte_and_its_configuration_has_its_size(tmp_path: Path) -> None:
    outcome = train(small_recipe(tmp_path), Job(directory=tmp_path, run_id="r", mode="offline", quiet=True))
    steps = logged(tmp_path, "r")
    assert [step for step in steps if "mfu" in steps[step]] == [19]
    assert steps[19]["held_out_bits_per_byte"] == pytest.approx(steps[19]["held_out_loss"] / np.log(2))
    trained = outcome.components
    assert trained.throughput.facts()["tokens_per_parameter"] == 20 * 64 / trained.model.num_parameters()


@pytest.mark.parametrize(("configured", "known"), [(0.0, None), (4.0, 4.0)])
def test_over_shards_bits_per_byte_are_known_where_the_bytes_of_a_token_are(
    tmp_path: Path, configured: float, known: float | None
) -> None:
    np.arange(2000, dtype=np.uint16).tofile(tmp_path / "a.bin")
    data = DataConfig(path=str(tmp_path / "a.bin"), batch_size=2, bytes_per_token=configured)
    model = ModelConfig(layers=1, heads=1, width=16, context=16, vocab_size=2000)
    recipe = small_recipe(tmp_path, data=data, model=model, steps=1, evaluate_every=1)
    assert bytes_per_token(recipe, *open_batches(recipe)) == known
    train(recipe, Job(directory=tmp_path, run_id="r", mode="offline", quiet=True))
    last = logged(tmp_path, "r")[0]
    bits = last["held_out_loss"] / np.log(2) / 4
    assert last.get("held_out_bits_per_byte") == (None if known is None else pytest.approx(bits))


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40", 181),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_a_gpu_is_known_by_the_name_that_its_driver_gives(name: str, tflops: float) -> None:
    peak = from_data_sheet(name)
    assert peak is not None
    assert peak.flops_per_second == pytest.approx(tflops * 1e12)
    assert peak.source == "dense bfloat16, data sheet"


@pytest.mark.parametrize("name", ["NVIDIA A10G", "Tesla T4", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA RTX 3090X"])
def test_a_gpu_that_is_not_in_the_table_is_not_guessed(name: str) -> None:
    assert from_data_sheet(name) is None
