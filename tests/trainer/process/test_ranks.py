from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from trainer.config import ModelConfig
from trainer.model import GPT
from trainer.process.ranks import parallelize


@pytest.fixture
def two_ranks() -> Iterator[None]:
    """This process is rank 0 of two, whose collectives do nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.usefixtures("two_ranks")
def test_fsdp_on_the_cpu_of_a_machine_with_a_gpu_stays_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._C._get_accelerator", lambda *_: torch.device("cuda"))
    model = GPT(ModelConfig(layers=1, heads=1, width=8, context=4))
    parallelize(model, "fsdp")
    for parameter in model.parameters():
        assert parameter.device_mesh.device_type == "cpu"  # type: ignore[attr-defined]
        assert parameter.to_local().shape[0] == -(-parameter.shape[0] // 2)  # type: ignore[attr-defined]
