"""A lab whose models train in a moment, and what it prints."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer.lab.training import Lab

SMALL = ["model.context=8", "model.layers=1", "model.width=8", "data.batch_size=2", "evaluate_windows=4"]


def small_lab(folder: Path, *overrides: str, **settings: Any) -> Lab:
    """One seed and two steps, unless the settings say otherwise."""
    return Lab(folder=folder, overrides=[*SMALL, *overrides], **{"num_seeds": 1, "steps": 2, **settings})


def shown(show: Callable[[Sequence[Any], Console], None], results: Sequence[Any]) -> str:
    """The table of these results as text."""
    output = io.StringIO()
    show(results, Console(file=output, width=200))
    return output.getvalue()
