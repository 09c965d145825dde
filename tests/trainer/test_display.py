import io
from pathlib import Path

import pytest
from rich.console import Console

import lossguard
from lossguard.torch import Checkpoints
from tests.trainer.small import small_recipe
from trainer.display import Display
from trainer.measurement.throughput import PeakFlops, Throughput

METRICS = {"loss": 2.0, "grad_norm": 1.0, "log_z": 6.0, "lr": 1e-3, "step_seconds": 0.01}


def _display(folder: Path, *, terminal: bool = False) -> tuple[Display, lossguard.Guard, io.StringIO]:
    run = lossguard.init("p", run_id="r", mode="off")
    guard = lossguard.Guard(run, checkpoints=Checkpoints(folder))
    output = io.StringIO()
    console = Console(file=output, width=200, force_terminal=terminal, highlight=False)
    recipe = small_recipe(folder, log_every=10)
    throughput = Throughput(recipe, num_parameters=2_000_000, peak=PeakFlops(1e12, "a guess"))
    return Display(recipe, run, guard, throughput=throughput, console=console), guard, output


def test_plain_lines_come_every_so_many_steps_and_at_the_end(tmp_path: Path) -> None:
    display, guard, output = _display(tmp_path)
    with display:
        for step, _ in guard.steps("abc", 20):
            display.show(step, METRICS | ({"held_out_loss": 2.5, "held_out_loss_se": 0.125} if step == 9 else {}))
    lines = output.getvalue().splitlines()
    assert lines[0] == "run r: small, 2.00 M parameters, 20 steps of 64 tokens"
    assert [line.split()[1] for line in lines[1:-2]] == ["0/20", "10/20", "19/20"]
    assert lines[-2] == (
        "finished 20 steps: loss 2.000 nats per token (2.885 bits), held-out loss 2.500 +- 0.125 (bits per byte need "
        "data.bytes_per_token, the average number of bytes per token)"
    )
    assert lines[-1].startswith("0.00064 tokens per parameter (Chinchilla: about 20); ")


def test_messages_of_the_guard_appear_between_the_lines_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with _display(tmp_path)[0] as display:
        assert len(list(display.guard.steps("abc", 15))) == 15
    display, guard, output = _display(tmp_path)
    with display:
        for step, _ in guard.steps("abc", 16):
            display.show(step, METRICS)
    assert output.getvalue().splitlines()[1] == "resumed from the checkpoint of step 15"
    assert not caplog.text
