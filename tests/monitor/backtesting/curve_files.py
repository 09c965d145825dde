"""Curves as CSV files."""

from pathlib import Path

import numpy as np


def written(folder: Path, text: str) -> Path:
    path = folder / "curve.csv"
    path.write_text(text)
    return path


def spiked(folder: Path) -> Path:
    random = np.random.default_rng(0)
    loss = 2.0 + 0.02 * random.standard_normal(600)
    loss[400:] += 1.5
    lines = [f"{step},{value:.5f}" for step, value in enumerate(loss)]
    return written(folder, "\n".join(["step,loss", *lines]))
