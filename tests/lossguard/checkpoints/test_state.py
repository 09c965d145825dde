import random
from pathlib import Path

import numpy as np
import torch

from lossguard.torch import Checkpoints


def test_generators_of_python_numpy_and_torch_come_back(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(torch.rand(()))]

    random.gauss(0, 1)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, {})
    checkpoints.settle(wait=True)
    first = draw()
    checkpoints.load(0)
    assert draw() == first
