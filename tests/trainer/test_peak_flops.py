import pytest
import torch

from trainer.peak_flops import DATA_SHEETS, from_data_sheet, peak_flops


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
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


def test_every_row_of_the_table_is_found_by_its_own_words() -> None:
    for row, flops_per_second in DATA_SHEETS:
        peak = from_data_sheet(f"NVIDIA {row} 80GB")
        assert peak is not None
        assert peak.flops_per_second == flops_per_second


def test_the_peak_of_a_cpu_is_measured_once_and_named_so() -> None:
    peak = peak_flops(torch.device("cpu"))
    assert peak.flops_per_second > 1e8
    assert peak.source == f"measured, float32 matrix product on {torch.get_num_threads()} thread(s)"
    assert peak_flops(torch.device("cpu")) is peak
