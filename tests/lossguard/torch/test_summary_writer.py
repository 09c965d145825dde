from importlib import import_module
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lossguard.torch.summary_writer import purge

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("package", ["torch.utils.tensorboard", "tensorboardX"])
def test_tensorboard_shows_repeated_steps_once(package: str, tmp_path: Path) -> None:
    writer = import_module(package).SummaryWriter(str(tmp_path))
    assert hasattr(writer, "_get_file_writer"), f"{package}.SummaryWriter._get_file_writer has gone"
    for step in range(10):
        writer.add_scalar("loss", 1.0, step)
    purge(writer, 6)
    for step in range(6, 9):
        writer.add_scalar("loss", 2.0, step)
    writer.close()
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(each.step, each.value) for each in shown] == [(step, 1.0 + (step > 5)) for step in range(9)]
