import pytest

from trainer.peak_flops import from_data_sheet


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
